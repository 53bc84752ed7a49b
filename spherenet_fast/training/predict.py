"""Predictions for files of structures."""

from io import StringIO

import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from .._files import write_file
from ..data.ase_files import from_atoms
from ..data.targets import is_total_energy
from ..data.units import conversion
from .potential import Potential


def predict(potential: Potential, structures: list[Atoms], batch_size: int = 32, forces: bool = True) -> list[Atoms]:
    """Copies of `structures` with predictions.

    A total energy (`is_total_energy`) becomes the copy's energy in eV, with forces in eV/Å if `forces`; in the numbers
    of the training data if its unit is unknown. Any other target is stored in ``atoms.info`` under its name, in the
    potential's unit.

    Raises:
        ValueError: a structure holds an element that was not in the training set.
    """
    dtype, device = next(potential.parameters()).dtype, potential.scale.device
    name, unit = potential.names[0], potential.units[0]
    energy = len(potential.names) == 1 and is_total_energy(name, unit)
    factor = conversion(unit, "eV") if energy and unit is not None else 1.0
    _check_elements(potential, structures)
    predicted = []
    for first in range(0, len(structures), batch_size):
        part = [atoms.copy() for atoms in structures[first : first + batch_size]]
        molecules = from_atoms(part, dtype)
        batch = molecules[:].to(device)
        results = [{} for _ in part]
        if energy and forces:
            y, slope = potential.energy_and_forces(batch)
            parts = (slope.double() * factor).cpu().split(molecules.n_atoms.tolist())
            results = [{"forces": part.numpy()} for part in parts]
        else:
            with torch.no_grad():
                y = potential(batch)
        for copy, row, result in zip(part, (y * factor).tolist(), results, strict=True):
            if energy:
                copy.calc = SinglePointCalculator(copy, energy=row[0], **result)
            else:
                copy.info.update(zip(potential.names, row, strict=True))
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
