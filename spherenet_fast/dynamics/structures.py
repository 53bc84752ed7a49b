"""The structures that dynamics begins with, and several of them as one that moves."""

from collections.abc import Callable
from typing import Any

import numpy as np
from ase import Atoms

from ..data import read_structures


def starting_structures(path, frame: int | None = None) -> list[Atoms]:
    """All structures of a file, or the one that `frame` chooses, each as of `starting_structure`.

    Raises FileNotFoundError, ValueError: what `read_structures` raises; or there is no such frame.
    """
    found = read_structures(path)
    return [bare(atoms) for atoms in (found if frame is None else [chosen_frame(found, frame)])]


def starting_structure(path, frame: int | None = None) -> Atoms:
    """One structure of a file: elements, masses, positions, cell, constraints, and velocities where it has some.

    frame: its number in the file, from 0, negative from the end; None: there is only one.

    Raises:
        FileNotFoundError, ValueError: what `read_structures` raises; or there is no such frame, or several and none is
            chosen.
    """
    found = starting_structures(path, frame)
    if len(found) > 1:
        raise ValueError(f"{path}: expected one structure, got {len(found)}; --frame 0 to {len(found) - 1} chooses one")
    return found[0]


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


def joined(structures: list[Atoms]) -> Atoms:
    """One structure of the atoms of all. Its positions and momenta are theirs: what moves one moves the other.

    Constraints act within their structures, as they did. Cells are left out.
    """
    whole = Atoms(
        np.concatenate([atoms.numbers for atoms in structures]),
        np.concatenate([atoms.positions for atoms in structures]),
        masses=np.concatenate([atoms.get_masses() for atoms in structures]),
        momenta=np.concatenate([atoms.get_momenta() for atoms in structures]),
    )
    constraints, first = [], 0
    for atoms in structures:
        part = slice(first, first + len(atoms))
        atoms.arrays |= {name: whole.arrays[name][part] for name in ("positions", "momenta")}  # views
        constraints += [Within(constraint, atoms, part) for constraint in atoms.constraints]
        first = part.stop
    whole.set_constraint(constraints)
    return whole


class Within:
    """A constraint of one of the structures that were `joined`, as ASE asks constraints of the whole.

    part: of the rows of the whole. It has the methods that the constraint has, and stays itself in copies of the whole.
    """

    def __init__(self, constraint: Any, atoms: Atoms, part: slice):
        self.constraint, self.atoms, self.part = constraint, atoms, part

    def __getattr__(self, name: str) -> Callable:
        method = getattr(self.__dict__["constraint"], name)

        def of_the_structure(whole, *rows, **options):
            return method(self.atoms, *(row[self.part] for row in rows), **options)

        return of_the_structure

    def __deepcopy__(self, memo: dict) -> "Within":
        return self
