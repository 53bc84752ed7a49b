"""Predictions for files of structures."""

import re
from io import StringIO

import numpy as np
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from .._files import write_file
from ..data.targets import is_total_energy
from ..data.units import conversion
from .potential import Potential
from .results import check_structures, in_parts, packed, results_in_batches

# What extended xyz and ASE call the parts of a structure itself, in lower case.
_RESERVED = frozenset(
    "pos positions z numbers species lattice cell pbc properties tags momenta masses charges initial_charges magmoms "
    "initial_magmoms move_mask".split()
)
_DERIVED = ("energies", "forces", "stress")


def predict(
    potential: Potential,
    structures: list[Atoms],
    batch_size: int = 32,
    forces: bool = True,
    keys: dict[str, str] | None = None,
    source: str = "the structures",
    allow_unseen_elements: bool = False,
) -> list[Atoms]:
    """Copies of `structures` with predictions.

    A total energy (`is_total_energy`) becomes the copy's energy in eV, with those of the atoms ("energies") where the
    model is a sum over them, and if `forces` with forces in eV/Å, and the stress in eV/Å^3 of structures that have one
    (`has_stress`). Any other target is stored in ``atoms.info`` under its name, in the potential's unit. `keys`
    {target, "energies", "forces" or "stress": name} gives predictions other names, in ``atoms.info`` and
    ``atoms.arrays``; a structure that came with results keeps them then, and what `keys` does not name is left out.
    `source` is where the structures are from, for messages.

    Raises:
        ValueError: the unit of the energy is unknown; a structure holds an element that was not in the training set
            (unless `allow_unseen_elements`), two atoms at one place or a flat cell; or `keys` names something that is
            not predicted.
    """
    keys = keys or {}
    if unknown := keys.keys() - {*potential.names, *_DERIVED}:
        known = ", ".join([*potential.names, *_DERIVED])
        raise ValueError(f"--keys: expected some of {known}, got {', '.join(unknown)}")
    if taken := _RESERVED & {name.lower() for name in keys.values()}:
        raise ValueError(f"--keys: expected names that a structure has no use for itself, got {', '.join(taken)}")
    name, unit = potential.names[0], potential.units[0]
    energy = len(potential.names) == 1 and is_total_energy(name, unit)
    if energy and unit is None:
        raise ValueError("--unit: expected the unit of the energy, which the checkpoint does not know, got none")
    check_structures(potential, structures, source, allow_unseen_elements)
    copies = [atoms.copy() for atoms in structures]
    if energy:
        properties = {"energies"} if potential.model.is_sum_over_atoms else set()
        properties |= {"forces", "stress"} if forces else set()
        found = results_in_batches(potential, structures, properties, conversion(unit, "eV"), batch_size)
        if not keys:
            for copy, result in zip(copies, found, strict=True):
                copy.calc = SinglePointCalculator(copy, **result)
            return copies
        found = [{name: result.pop("energy"), **result} for result in found]
    else:
        found = _targets_in_batches(potential, structures, batch_size)
    for copy, before, result in zip(copies, structures, found, strict=True):
        keeps = energy and before.calc is not None
        for known, value in result.items():
            if known in keys or not keeps:
                place = copy.arrays if known in ("energies", "forces") else copy.info
                place[keys.get(known, known)] = value
        if keeps:
            copy.calc = SinglePointCalculator(copy, **before.calc.results)
    return copies


def _targets_in_batches(potential: Potential, structures: list[Atoms], batch_size: int) -> list[dict[str, float]]:
    """{target: value in the potential's unit} of every structure."""
    found = []
    for part in in_parts(structures, batch_size):
        with torch.no_grad():
            rows = potential(packed(potential, part)[:].to(potential.scale.device))
        found += [dict(zip(potential.names, row, strict=True)) for row in rows.tolist()]
    return found


def write_structures(path, structures: list[Atoms]) -> None:
    """Write an extended XYZ file, all or nothing. Raises OSError, which says what cannot be written."""
    import ase.io

    text = StringIO()
    ase.io.write(text, structures, format="extxyz")
    write_file(path, text.getvalue().encode())


def extended_xyz(structures: list[Atoms]) -> str:
    """Extended XYZ as ASE writes it, but with every digit of positions, forces and other columns of numbers."""
    return "".join(map(_in_full, structures))


def _in_full(atoms: Atoms) -> str:
    import ase.io

    text = StringIO()
    ase.io.write(text, atoms, format="extxyz")
    count, head, *lines = text.getvalue().splitlines()
    columns = re.search(r"Properties=(\S+)", head)[1].split(":")  # name, kind and width of each
    values = dict(atoms.arrays) | (atoms.calc.results if atoms.calc else {}) | {"pos": atoms.positions}
    rows, first = [line.split() for line in lines], 0
    for name, kind, width in zip(columns[::3], columns[1::3], map(int, columns[2::3]), strict=True):
        if kind == "R" and name in values:
            for row, numbers in zip(rows, np.reshape(values[name], (len(atoms), width)).tolist(), strict=True):
                row[first : first + width] = map(repr, numbers)
        first += width
    return "\n".join([count, head, *map(" ".join, rows), ""])
