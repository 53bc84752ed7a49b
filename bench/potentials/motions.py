"""Straight paths through geometries: random segments, and a neighbor that overtakes another."""

import torch
from torch import Tensor

from spherenet_fast.checks.lines import Line, bonds

CLOSEST = 0.5  # Å, of two atoms on a random segment
KINDS = ("all atoms move", "an atom crosses a line of two others", "an atom leaves")


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
