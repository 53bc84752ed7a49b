"""Structures through ASE: any file it reads, molecules and periodic cells alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from .centering import centered
from .molecules import Molecules
from .relaxations import RELAXATION_TARGETS
from .targets import canonical_target

if TYPE_CHECKING:
    from ase import Atoms


def read_structures(path) -> list[Atoms]:
    """All structures of a file that ``ase.io.read`` understands.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: ASE cannot read it, or it holds no structure.
    """
    import ase.io

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        structures = ase.io.read(path, ":")
    except Exception as error:  # ASE's parsers raise whatever the first line that puzzles them leads to
        raise ValueError(
            f"{path}: expected structures that ASE can read, got {type(error).__name__}: {error}"
        ) from error
    if not structures:
        raise ValueError(f"{path}: expected at least one structure, got none")
    return structures


def from_atoms(structures: list[Atoms], dtype: torch.dtype = torch.float32) -> Molecules:
    """Pack ASE structures: energies (eV) and forces (eV/Å) from their calculators, other labels from ``atoms.info``.

    A label counts only if every structure has it. Energies and forces are ASE's, in eV; labels in ``atoms.info`` have
    no unit. Atoms under a FixAtoms are `fixed`. Positions are moved to the origin, or by whole cells, before they are
    rounded to `dtype`: see `centered`.
    """
    results = [{} if atoms.calc is None else atoms.calc.results for atoms in structures]
    labels, units = {}, {}
    if all("energy" in result for result in results):
        labels["energy"], units["energy"] = [result["energy"] for result in results], "eV"
    for name in structures[0].info if structures else ():
        values = [atoms.info.get(name) for atoms in structures]
        if name not in labels and all(isinstance(value, (float, int, np.floating, np.integer)) for value in values):
            labels[canonical_target(name)] = values
    y = np.array(list(labels.values()), dtype=np.float64).reshape(len(labels), len(structures)).T
    forces = [result["forces"] for result in results] if all("forces" in result for result in results) else None
    periodic = any(atoms.pbc.any() for atoms in structures)
    fixed = [_fixed(atoms) for atoms in structures]

    def pack(arrays, to=dtype):
        return torch.from_numpy(np.ascontiguousarray(arrays)).to(to)

    n_atoms = torch.tensor([len(atoms) for atoms in structures], dtype=torch.int64)
    cell = np.stack([np.asarray(atoms.cell) for atoms in structures]) if periodic else None
    pbc = np.stack([atoms.pbc for atoms in structures]) if periodic else None
    return Molecules(
        n_atoms=n_atoms,
        z=pack(np.concatenate([atoms.numbers for atoms in structures]), torch.int64),
        pos=centered(np.concatenate([atoms.positions for atoms in structures]), n_atoms, cell, pbc, dtype),
        y=pack(y, torch.float64),
        names=tuple(labels),
        units=tuple(units.get(name) for name in labels),
        forces=None if forces is None else pack(np.concatenate(forces)),
        cell=pack(cell) if periodic else None,
        pbc=pack(pbc, torch.bool) if periodic else None,
        fixed=pack(np.concatenate(fixed), torch.bool) if any(mask.any() for mask in fixed) else None,
    )


def _fixed(atoms: Atoms) -> np.ndarray:
    """[N] bool, the atoms that a FixAtoms holds."""
    from ase.constraints import FixAtoms

    mask = np.zeros(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            mask[constraint.index] = True
    return mask


def read_ase(path, dtype: torch.dtype = torch.float32, relaxations: bool = False) -> Molecules:
    """Read a file, or all files of a folder but hidden ones, with ASE and pack the structures.

    The structures of a file in a folder are one group, which `random_split` does not part; those of a single file stand
    alone.

    Args:
        relaxations: every file is the trajectory of a relaxation, and becomes one structure: the first one, with the
            energies of the last and the first as targets relaxed_energy and initial_energy, eV.

    Raises:
        ValueError: a trajectory has no energies; or what `read_structures` raises.
    """
    path = Path(path)
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    if not files:
        raise ValueError(f"{path}: expected files that ASE can read, got an empty folder")
    if not relaxations:
        trajectories = [read_structures(file) for file in files]
        lengths = torch.tensor([len(frames) for frames in trajectories])
        group = torch.repeat_interleave(torch.arange(len(files)), lengths) if path.is_dir() else None
        return replace(from_atoms([atoms for frames in trajectories for atoms in frames], dtype), group=group)
    structures, y = [], []
    for file in files:
        frames = read_structures(file)
        structures.append(frames[0])
        y.append([_energy(file, frames[-1]), _energy(file, frames[0])])
    return replace(
        from_atoms(structures, dtype),
        y=torch.tensor(y, dtype=torch.float64), names=RELAXATION_TARGETS, units=("eV", "eV"), forces=None,
    )  # fmt: skip


def _energy(file, atoms: Atoms) -> float:
    energy = None if atoms.calc is None else atoms.calc.results.get("energy")
    if energy is None:
        raise ValueError(f"{file}: expected a trajectory with energies, got a structure without")
    return energy
