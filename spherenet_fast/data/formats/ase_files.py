"""Structures through ASE: any file it reads, molecules and periodic cells alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...nn.ranges import MAX_ATOMIC_NUMBER
from ..centering import centered
from ..file_units import in_stated_units
from ..labels import Labels, find_labels, missing_label
from ..molecules import Molecules, Origin
from ..reading import ReadOptions
from .relaxations import RELAXATION_TARGETS
from .structures import read_structures, structure_format

if TYPE_CHECKING:
    from ase import Atoms


def from_atoms(
    structures: list[Atoms],
    dtype: torch.dtype = torch.float32,
    keys: dict[str, str] | None = None,
    forces: bool = False,
    origin: Origin | None = None,
    labels: bool = True,
    partial: bool = False,
) -> Molecules:
    """Pack ASE structures: energies (eV) and forces (eV/Å) from their calculators, other labels from ``atoms.info``.

    A label that only some structures have is NaN in the others. Labels in ``atoms.info`` have no unit, except the
    targets of QM9's own files. Atoms under a FixAtoms are `fixed`. Positions are moved to the origin, or by whole
    cells, before they are rounded to `dtype`: see `centered`.

    Args:
        keys, forces, partial: see `find_labels`.
        origin: of the structures, for messages.
        labels: False to read none.

    Raises:
        ValueError: an atom is no element, or what `find_labels` raises.
    """
    name = "structure {}".format if origin is None else origin.name
    fixed = []
    for number, atoms in enumerate(structures):
        if len(atoms) == 0:
            raise ValueError(f"{name(number)}: expected at least 1 atom, got 0")
        if not 1 <= atoms.numbers.min() <= atoms.numbers.max() <= MAX_ATOMIC_NUMBER:
            numbers = sorted(set(atoms.numbers.tolist()))
            raise ValueError(f"{name(number)}: z: expected atomic numbers 1 to {MAX_ATOMIC_NUMBER}, got {numbers}")
        if not np.isfinite(atoms.positions).all():
            raise ValueError(f"{name(number)}: pos: expected finite numbers, got others")
        try:
            fixed.append(fixed_atoms(atoms))
        except IndexError as error:
            raise ValueError(f"{name(number)}: FixAtoms: expected atoms 0 to {len(atoms) - 1}, {error}") from error
    found = find_labels(structures, keys, forces, name, partial) if labels else Labels({}, {}, None, None, (), ())
    y = np.array(list(found.columns.values()), dtype=np.float64).reshape(len(found.columns), len(structures)).T
    periodic = any(atoms.pbc.any() for atoms in structures)

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
        names=tuple(found.columns),
        units=tuple(found.units.get(name) for name in found.columns),
        forces=None if found.forces is None else pack(found.forces),
        cell=pack(cell) if periodic else None,
        pbc=pack(pbc, torch.bool) if periodic else None,
        fixed=pack(np.concatenate(fixed), torch.bool) if any(mask.any() for mask in fixed) else None,
        origin=origin,
        stress=None if found.stress is None else pack(found.stress),
        vectors=found.vectors,
        notes=found.notes,
    )


def fixed_atoms(atoms: Atoms) -> np.ndarray:
    """[N] bool, the atoms that a FixAtoms holds; IndexError where it holds others."""
    from ase.constraints import FixAtoms

    mask = np.zeros(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            mask[constraint.index] = True
    return mask


def holds(source: str) -> bool:
    """Any file or folder."""
    return True


def read_source(source: str, options: ReadOptions) -> Molecules:
    molecules = read_ase(source, options.dtype, options.relaxations, dict(options.keys), options.forces)
    return in_stated_units(molecules, dict(options.file_units))


def read_ase(
    path,
    dtype: torch.dtype = torch.float32,
    relaxations: bool = False,
    keys: dict[str, str] | None = None,
    forces: bool = False,
) -> Molecules:
    """Read a file, or the files of a folder, with ASE and pack the structures.

    Hidden files of a folder are not read, nor what ASE knows no format for, which `notes` of the result names. The
    structures of a file in a folder are one group, which `random_split` does not part; those of a single file stand
    alone.

    Args:
        relaxations: every file is the trajectory of a relaxation, and becomes one structure: the first one, with the
            energies of the last and the first as targets relaxed_energy and initial_energy, eV.
        keys, forces: see `find_labels`.

    Raises:
        ValueError: a trajectory has no energies; or what `read_structures` and `from_atoms` raise.
    """
    path = Path(path)
    files, notes = _files(path)
    trajectories = [read_structures(file) for file in files]
    names = tuple(map(str, files))
    if relaxations:
        if unused := (keys or {}).keys() - {"energy"}:
            raise ValueError(f"data.keys: expected energy alone for relaxations, got {', '.join(sorted(unused))}")
        firsts = [frames[0] for frames in trajectories]
        y = [
            [_energy(file, frames, -1, keys), _energy(file, frames, 0, keys)]
            for file, frames in zip(names, trajectories, strict=True)
        ]
        packed = from_atoms(firsts, dtype, origin=Origin(names, (1,) * len(files)), labels=False)
        y = torch.tensor(y, dtype=torch.float64)
        return replace(packed, y=y, names=RELAXATION_TARGETS, units=("eV", "eV"), notes=notes)
    lengths = [len(frames) for frames in trajectories]
    structures = [atoms for frames in trajectories for atoms in frames]
    packed = from_atoms(structures, dtype, keys, forces, Origin(names, tuple(lengths)))
    group = torch.repeat_interleave(torch.arange(len(files)), torch.tensor(lengths)) if path.is_dir() else None
    return replace(packed, group=group, notes=notes + packed.notes)


def _files(path: Path) -> tuple[list[Path], tuple[str, ...]]:
    """The files with structures at `path`, a file or a folder, and what to say about the others."""
    if not path.is_dir():
        return [path], ()
    visible = sorted(file for file in path.iterdir() if not file.name.startswith("."))
    files = [file for file in visible if file.is_file() and structure_format(file) is not None]
    skipped = [file.name for file in visible if file not in set(files)]
    if not files:
        found = ", ".join(skipped[:5]) or "an empty folder"
        raise ValueError(f"{path}: expected files that ASE can read, got {found}")
    if not skipped:
        return files, ()
    names = ", ".join(skipped[:5]) + (f" and {len(skipped) - 5} more" if len(skipped) > 5 else "")
    return files, (f"{path}: skipped {names}, which ASE has no format for",)


def _energy(file: str, frames: list[Atoms], number: int, keys: dict[str, str] | None) -> float:
    """The energy of one frame of the trajectory in `file`, eV."""
    found = find_labels([frames[number]], keys, name=lambda _: f"frame {number % len(frames)} of {file}").columns
    if "energy" not in found:
        has = missing_label("energy", "energy", tuple(found), ())
        raise ValueError(f"{file}: expected a trajectory with energies, got a structure without; {has}")
    return float(found["energy"][0])
