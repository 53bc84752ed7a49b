"""Predictions for files of structures."""

from io import StringIO

import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from .._files import write_file
from ..data.checks import check_frames
from ..data.formats.ase_files import from_atoms
from ..data.molecules import Origin
from ..data.targets import is_total_energy
from ..data.units import conversion
from .potential import Potential

# What extended xyz and ASE call the parts of a structure itself, in lower case.
_RESERVED = frozenset(
    "pos positions z numbers species lattice cell pbc properties tags momenta masses charges initial_charges magmoms "
    "initial_magmoms move_mask".split()
)


def predict(
    potential: Potential,
    structures: list[Atoms],
    batch_size: int = 32,
    forces: bool = True,
    keys: dict[str, str] | None = None,
    source: str = "the structures",
) -> list[Atoms]:
    """Copies of `structures` with predictions.

    A total energy (`is_total_energy`) becomes the copy's energy in eV, with forces in eV/Å if `forces`. Any other
    target is stored in ``atoms.info`` under its name, in the potential's unit. `keys` {target or "forces": name} gives
    predictions other names, in ``atoms.info`` and ``atoms.arrays``; a copy keeps the results that the structure came
    with then. `source` is where the structures are from, for messages.

    Raises:
        ValueError: the unit of the energy is unknown; a structure holds an element that was not in the training set,
            two atoms at one place or a flat cell; or `keys` names something that is not predicted.
    """
    keys = keys or {}
    if unknown := keys.keys() - {*potential.names, "forces"}:
        known = ", ".join([*potential.names, "forces"])
        raise ValueError(f"--keys: expected some of {known}, got {', '.join(unknown)}")
    if taken := _RESERVED & {name.lower() for name in keys.values()}:
        raise ValueError(f"--keys: expected names that a structure has no use for itself, got {', '.join(taken)}")
    if structures:
        origin = Origin((source,), (len(structures),))
        check_frames(from_atoms(structures, torch.float64, labels=False, origin=origin))
    dtype, device = next(potential.parameters()).dtype, potential.scale.device
    name, unit = potential.names[0], potential.units[0]
    energy = len(potential.names) == 1 and is_total_energy(name, unit)
    if energy and unit is None:
        raise ValueError("--unit: expected the unit of the energy, which the checkpoint does not know, got none")
    factor = conversion(unit, "eV") if energy else 1.0
    _check_elements(potential, structures)
    predicted = []
    for first in range(0, len(structures), batch_size):
        part = [atoms.copy() for atoms in structures[first : first + batch_size]]
        molecules = from_atoms(part, dtype, labels=False)
        batch = molecules[:].to(device)
        results = [{} for _ in part]
        if energy and forces:
            y, slope = potential.energy_and_forces(batch)
            parts = (slope.double() * factor).cpu().split(molecules.n_atoms.tolist())
            results = [{"forces": part.numpy()} for part in parts]
        else:
            with torch.no_grad():
                y = potential(batch)
        given = structures[first : first + batch_size]
        for copy, before, row, result in zip(part, given, (y * factor).tolist(), results, strict=True):
            if energy and not keys:
                copy.calc = SinglePointCalculator(copy, energy=row[0], **result)
                continue
            copy.info.update({keys.get(name, name): value for name, value in zip(potential.names, row, strict=True)})
            copy.arrays.update({keys.get(name, name): value for name, value in result.items()})
            if energy and before.calc is not None:
                copy.calc = SinglePointCalculator(copy, **before.calc.results)
        predicted += part
    return predicted


def _check_elements(potential: Potential, structures: list[Atoms]) -> None:
    for number, atoms in enumerate(structures):
        try:
            potential.check_elements(torch.from_numpy(atoms.numbers))
        except ValueError as error:
            raise ValueError(f"structure {number}: {error}") from error


def write_structures(path, structures: list[Atoms]) -> None:
    """Write an extended XYZ file, all or nothing. Raises OSError, which says what cannot be written."""
    import ase.io

    text = StringIO()
    ase.io.write(text, structures, format="extxyz")
    write_file(path, text.getvalue().encode())
