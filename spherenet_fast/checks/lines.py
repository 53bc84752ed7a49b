"""Straight paths through geometries: bonds that stretch, and atoms that leave the plane of their neighbors."""

from typing import NamedTuple

import numpy as np
import torch
from ase.data import covalent_radii
from scipy.sparse.csgraph import shortest_path
from torch import Tensor

from ..data.molecules import Batch


class Line(NamedTuple):
    """Positions start + t * move, t from 0 to 1: z [N], start [N, 3] and move [N, 3] in Å.

    Of what repeats cell [3, 3] in Å and pbc [3] bool, too.
    """

    z: Tensor
    start: Tensor
    move: Tensor
    cell: Tensor | None = None
    pbc: Tensor | None = None

    def frames(self, t: Tensor, dtype: torch.dtype) -> Batch:
        """The geometries at t [F] as one batch."""
        count, atoms = len(t), len(self.z)
        pos = (self.start + t[:, None, None] * self.move).reshape(-1, 3).to(dtype)
        cell = None if self.cell is None else self.cell.to(dtype).expand(count, 3, 3)
        pbc = None if self.pbc is None else self.pbc.expand(count, 3)
        return Batch(self.z.repeat(count), pos, torch.arange(count).repeat_interleave(atoms), count, cell, pbc)

    def length(self) -> float:
        """Of the longest way of an atom, Å."""
        return float(self.move.norm(dim=1).max())

    def closest(self) -> float:
        """The shortest distance of two atoms on the way, Å; infinite for one atom."""
        frames = self.frames(torch.linspace(0, 1, 41, dtype=torch.float64), torch.float64).pos.reshape(41, -1, 3)
        distances = torch.cdist(frames, frames) + torch.diag(torch.full((len(self.z),), torch.inf))
        return float(distances.min())


def bonds(z: Tensor, pos: Tensor) -> Tensor:
    """[B, 2]: the pairs of atoms closer than 1.25 times the sum of their covalent radii."""
    radii = torch.from_numpy(covalent_radii)[z]
    bonded = torch.cdist(pos, pos) < 1.25 * (radii[:, None] + radii)
    return bonded.triu(1).nonzero()


def stretches(z: Tensor, pos: Tensor, shortest: float = 0.7, longest: float = 1.6) -> list[Line]:
    """Each bond from `shortest` to `longest` times its length.

    The atoms that are fewer bonds away from one end than from the other move with it, both parts rigid: what hangs on
    the bond, of a ring one half.
    """
    pairs = bonds(z, pos)
    steps = _steps(pairs, len(z))
    lines = []
    for a, b in pairs.tolist():
        moves = (steps[b] < steps[a]).to(pos.dtype)[:, None] * (pos[b] - pos[a])
        lines.append(Line(z, pos + (shortest - 1) * moves, (longest - shortest) * moves))
    return lines


def out_of_plane(z: Tensor, pos: Tensor, half: float = 0.25) -> list[Line]:
    """Each atom from `half` Å below to `half` Å above, across the plane that fits it and its neighbors best.

    The neighbors are those within one bond, or within two where that makes fewer than three atoms. Atoms without such
    a plane have no line.
    """
    steps, lines = _steps(bonds(z, pos), len(z)), []
    for atom in range(len(z)):
        near = [group for reach in (1, 2) if (group := (steps[atom] <= reach)).sum() > 2]
        if near:
            around = pos[near[0]]
            move = torch.zeros_like(pos)
            move[atom] = 2 * half * torch.linalg.svd(around - around.mean(0))[2][-1]
            lines.append(Line(z, pos - move / 2, move))
    return lines


def _steps(pairs: Tensor, count: int) -> Tensor:
    """[count, count]: bonds on the way from an atom to another; infinite where there is none."""
    adjacency = np.zeros((count, count))
    adjacency[pairs[:, 0], pairs[:, 1]] = 1
    return torch.from_numpy(shortest_path(adjacency, directed=False, unweighted=True))
