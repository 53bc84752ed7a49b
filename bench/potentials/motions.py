"""Straight paths through geometries: bonds that stretch, random segments, and a neighbor that overtakes another."""

from typing import NamedTuple

import numpy as np
import torch
from ase.data import covalent_radii
from scipy.sparse.csgraph import shortest_path
from torch import Tensor

from spherenet_fast.data import Batch

CLOSEST = 0.5  # Å, of two atoms on a random segment
KINDS = ("all atoms move", "an atom crosses a line of two others", "an atom leaves")


class Line(NamedTuple):
    """Positions start + t * move, t from 0 to 1: z [N], start [N, 3] and move [N, 3] in Å."""

    z: Tensor
    start: Tensor
    move: Tensor

    def frames(self, t: Tensor, dtype: torch.dtype) -> Batch:
        """The geometries at t [F] as one batch."""
        count, atoms = len(t), len(self.z)
        pos = (self.start + t[:, None, None] * self.move).reshape(-1, 3).to(dtype)
        return Batch(self.z.repeat(count), pos, torch.arange(count).repeat_interleave(atoms), count)

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
    adjacency = np.zeros((len(z), len(z)))
    adjacency[pairs[:, 0], pairs[:, 1]] = 1
    steps = torch.from_numpy(shortest_path(adjacency, directed=False, unweighted=True))
    lines = []
    for a, b in pairs.tolist():
        moves = (steps[b] < steps[a]).to(pos.dtype)[:, None] * (pos[b] - pos[a])
        lines.append(Line(z, pos + (shortest - 1) * moves, (longest - shortest) * moves))
    return lines


def segment(z: Tensor, pos: Tensor, kind: str, cutoff: float, generator: torch.Generator) -> Line:
    """A random line of one of the KINDS, 1 Å long, or `cutoff` where an atom leaves.

    Raises ValueError if no line of a hundred keeps the atoms CLOSEST apart.
    """
    for _ in range(100):
        line = _draw(z, pos, kind if len(z) > 2 else KINDS[0], cutoff, generator)
        if line.closest() > CLOSEST:
            return line
    raise ValueError(f"pos: expected a geometry with room for a line on which {kind}, got {len(z)} atoms too close")


def _draw(z: Tensor, pos: Tensor, kind: str, cutoff: float, generator: torch.Generator) -> Line:
    direction = torch.randn(pos.shape, generator=generator, dtype=pos.dtype)
    if kind == KINDS[0]:
        move = direction / direction.norm(dim=1).max()
        return Line(z, pos - move / 2, move)
    atom, a, b = torch.randperm(len(z), generator=generator)[:3].tolist()
    start, move = pos.clone(), torch.zeros_like(pos)
    if kind == KINDS[1]:  # behind a, seen from b, as far as a bond
        axis = (pos[a] - pos[b]) / (pos[a] - pos[b]).norm()
        across = torch.linalg.cross(axis, direction[atom])
        move[atom] = across / across.norm()
        start[atom] = pos[a] + 1.2 * axis - move[atom] / 2
    else:
        outward = pos[atom] - pos.mean(0)
        way = outward / outward.norm() + 0.3 * direction[atom]
        move[atom] = cutoff * way / way.norm()
    return Line(z, start, move)


def segments(sources, count: int, cutoff: float, seed: int = 0) -> list[Line]:
    """`count` random lines, kinds and sources (each a `Molecules`) in turn, in a random geometry of the source."""
    generator = torch.Generator().manual_seed(seed)
    lines = []
    for number in range(count):
        molecules = sources[number % len(sources)]
        frame = molecules[int(torch.randint(len(molecules), (1,), generator=generator))]
        lines.append(segment(frame.z, frame.pos, KINDS[number // len(sources) % len(KINDS)], cutoff, generator))
    return lines


def overtaking(z: Tensor, pos: Tensor, half: float = 0.1) -> Line:
    """One atom, on 2 `half` Å across a bond's axis, overtakes another halfway, as seen along the bond.

    Of all bonds and pairs of neighbors of their ends the one with the shortest way. Raises ValueError if no atom is
    near enough to overtake another.
    """
    best = torch.inf, None
    for a, b in bonds(z, pos).tolist():
        for j, i in ((a, b), (b, a)):
            axis = (pos[i] - pos[j]) / (pos[i] - pos[j]).norm()
            across = pos - pos[j] - ((pos - pos[j]) @ axis)[:, None] * axis
            away = across.norm(dim=1)
            near = ((away > 0.5) & ((pos - pos[j]).norm(dim=1) < 3)).nonzero()[:, 0].tolist()
            for q in near:
                for n in (n for n in near if n != q):
                    turned = torch.atan2(torch.linalg.cross(across[q], across[n]) @ axis, across[q] @ across[n])
                    way = float(away[q] * torch.tan(turned))
                    if abs(float(turned)) < 1 and abs(way) < abs(best[0]):
                        best = way, (q, torch.linalg.cross(axis, across[q]) / away[q])
    if best[1] is None:
        raise ValueError("pos: expected a geometry in which a neighbor can overtake another, got none")
    way, (q, tangent) = best
    start, move = pos.clone(), torch.zeros_like(pos)
    start[q] += (way - half) * tangent
    move[q] = 2 * half * tangent
    return Line(z, start, move)
