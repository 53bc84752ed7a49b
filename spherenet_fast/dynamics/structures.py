"""The structure that dynamics begins with."""

import numpy as np
from ase import Atoms

from ..data import read_structures


def starting_structure(path, frame: int | None = None) -> Atoms:
    """One structure of a file: elements, masses, positions, cell, constraints, and velocities where it has some.

    frame: its number in the file, from 0, negative from the end; None: there is only one.

    Raises:
        FileNotFoundError, ValueError: what `read_structures` raises; or there is no such frame, or several and none is
            chosen.
    """
    found = read_structures(path)
    if frame is None and len(found) > 1:
        raise ValueError(f"{path}: expected one structure, got {len(found)}; --frame 0 to {len(found) - 1} chooses one")
    return bare(chosen_frame(found, frame or 0))


def chosen_frame(structures: list[Atoms], frame: int) -> Atoms:
    """The structure of this number, from 0, negative from the end. Raises ValueError if there is none."""
    if not -len(structures) <= frame < len(structures):
        raise ValueError(f"--frame: expected {-len(structures)} to {len(structures) - 1}, got {frame}")
    return structures[frame]


def largest_force(forces: np.ndarray) -> float:
    """Of forces [N, 3], in their unit."""
    return float(np.linalg.norm(forces, axis=1).max())


def bare(atoms: Atoms) -> Atoms:
    """Without labels and whatever else was true of the structure as it lay in its file alone."""
    copy = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, constraint=atoms.constraints)
    if atoms.has("masses"):
        copy.set_masses(atoms.get_masses())
    if atoms.has("momenta") and np.any(atoms.get_momenta()):
        copy.set_momenta(atoms.get_momenta(), apply_constraint=False)
    return copy
