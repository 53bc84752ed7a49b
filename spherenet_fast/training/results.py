"""What ASE calls the results of structures, from a trained potential, many structures at a time."""

from collections.abc import Collection
from typing import Any

import torch
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress

from ..data.checks import check_frames
from ..data.formats.ase_files import from_atoms
from ..data.molecules import Molecules, Origin
from ..data.targets import QM9_TARGETS, is_total_energy
from ..data.units import conversion, is_energy
from ..graph.graph import first_atoms
from ..graph.periodic import is_flat
from ..ops import segment_sum
from .potential import Potential


def in_parts(items: list, batch_size: int) -> list[list]:
    """`items`, so many at a time. Raises ValueError for fewer than 1."""
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    return [items[first : first + batch_size] for first in range(0, len(items), batch_size)]


def results_in_batches(
    potential: Potential, structures: list[Atoms], properties: Collection[str], factor: float, batch_size: int
) -> list[dict[str, Any]]:
    """`results` of every structure, of so many at a time; the stress of those alone that have one."""
    found: dict[int, dict[str, Any]] = {}
    stressed = [number for number, atoms in enumerate(structures) if "stress" in properties and has_stress(atoms)]
    others = sorted(set(range(len(structures))) - set(stressed))
    for numbers, wanted in ((stressed, set(properties)), (others, set(properties) - {"stress"})):
        for part in in_parts(numbers, batch_size):
            found |= zip(part, results(potential, [structures[number] for number in part], wanted, factor), strict=True)
    return [found[number] for number in range(len(structures))]


def results(
    potential: Potential,
    structures: list[Atoms],
    properties: Collection[str],
    factor: float,
    recorded: bool = False,
) -> list[dict[str, Any]]:
    """What ASE calls the results of structures, computed in one batch with a potential of an energy.

    Args:
        properties: which of "energies" (of the atoms), "forces" and "stress" are wanted besides the energy. The forces
            come with the stress, which every structure has to have (`has_stress`).
        factor: eV per unit of the potential's energy.
        recorded: from recorded operators (`Potential.recorded`), which give no energies of atoms.

    Returns:
        "energy", eV, "energies" [N], eV, which add up to it, "forces" [N, 3], eV/Å, and "stress" [6], eV/Å^3.
    """
    molecules = packed(potential, structures)
    batch, counts = molecules[:].to(potential.scale.device), molecules.n_atoms.tolist()
    per_atom: dict[str, Any] = {"per_atom": True} if "energies" in properties else {}
    model = potential.recorded if recorded and not per_atom else potential.model
    with torch.no_grad():
        if "stress" in properties:
            prediction, *slopes = model.energy_forces_stress(batch, **per_atom)
        elif "forces" in properties:
            prediction, *slopes = model.energy_and_forces(batch, **per_atom)
        else:
            prediction, *slopes = (potential.model(batch, **per_atom),)
        of_atoms = {}
        if per_atom:
            energies = potential.in_units(batch, prediction, per_atom=True)[0]
            prediction = segment_sum(prediction, first_atoms(batch.batch, batch.num_graphs), None, batch.batch)
        energy, *slopes = potential.in_units(batch, prediction, *slopes)
        if per_atom:  # the energy is a sum in the model's dtype: what that rounds off is shared out
            rest = energy.index_add(0, batch.batch, energies, alpha=-1)
            of_atoms["energies"] = (energies + (rest / molecules.n_atoms.to(rest)[:, None])[batch.batch])[:, 0]
    found: list[dict[str, Any]] = [{"energy": value} for value in (factor * energy[:, 0]).tolist()]
    of_atoms |= zip(("forces",), slopes, strict=False)
    for name, rows in of_atoms.items():
        for result, part in zip(found, (factor * rows.double()).cpu().split(counts), strict=True):
            result[name] = part.numpy()
    for stress in slopes[1:]:
        for result, matrix in zip(found, (factor * stress.double()).cpu().numpy(), strict=True):
            result["stress"] = full_3x3_to_voigt_6_stress(matrix)
    return found


def has_stress(atoms: Atoms) -> bool:
    """Whether there is a stress: the atoms repeat, in a cell of three vectors that span a volume."""
    return bool(atoms.pbc.any()) and not is_flat(torch.from_numpy(atoms.cell.array)[None])


def check_structures(
    potential: Potential, structures: list[Atoms], source: str = "the structures", allow_unseen_elements: bool = False
) -> None:
    """ValueError that names the first of `structures` for which the potential has no prediction: see `predict`."""
    if structures:
        origin = Origin((source,), (len(structures),))
        check_frames(from_atoms(structures, torch.float64, labels=False, origin=origin))
    for number, atoms in enumerate(() if allow_unseen_elements else structures):
        try:
            potential.check_elements(torch.from_numpy(atoms.numbers))
        except ValueError as error:
            raise ValueError(f"structure {number}: {error}") from error


def packed(potential: Potential, structures: list[Atoms]) -> Molecules:
    """The structures without labels, in the dtype of the potential."""
    return from_atoms(structures, next(potential.parameters()).dtype, labels=False)


def energy_factor(potential: Potential, unit: str | None = None) -> float:
    """eV per unit of the potential's energy.

    Raises:
        ValueError: it predicts something else than one energy, or its unit is unknown and `unit` is not given.
    """
    if len(potential.names) != 1:
        raise ValueError(f"potential: expected one that predicts an energy alone, got {', '.join(potential.names)}")
    said, unit = unit, potential.units[0] or unit
    if unit is None:
        raise ValueError("unit: expected the unit of the energy, which the potential does not know, got none")
    stated = said and is_energy(unit) and potential.names[0] not in QM9_TARGETS
    if not (is_total_energy(potential.names[0], unit) or stated):
        raise ValueError(
            f"potential: expected one that predicts an energy, got {potential.names[0]} in {unit}; if that is the "
            "energy, unit='eV' says so (and in training data.keys)"
        )
    return conversion(unit, "eV")
