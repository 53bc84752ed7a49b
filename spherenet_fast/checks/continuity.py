"""How continuous energies and forces are along lines: jumps, and what is left of a change over almost no distance."""

from typing import NamedTuple

import torch
from scipy.signal import find_peaks
from torch import Tensor

from ..training.potential import Potential
from .lines import Line

DEPTH = 1e-3  # eV: shallower minima are not counted
PARTS = 8  # of an interval, at each step of its refinement


class Surface:
    """Energies in eV and forces in eV/Å of a potential on lines."""

    def __init__(self, potential: Potential, factor: float, batch: int = 64):
        self.potential, self.batch = potential, batch
        self.scale = factor * float(potential.scale)  # eV
        self.dtype = next(potential.model.parameters()).dtype
        self.device = potential.scale.device

    def __call__(self, line: Line, t: Tensor) -> tuple[Tensor, Tensor]:
        """At t [F] energies [F], less the constants of the atoms, and forces [F, N, 3], float64."""
        energies, forces = [], []
        for part in t.split(self.batch):
            data = line.frames(part, self.dtype).to(self.device)
            energy, force = self.potential.model.energy_and_forces(data)
            energies.append(self.scale * energy[:, 0].detach().cpu().double())
            forces.append(self.scale * force.detach().cpu().double().reshape(len(part), -1, 3))
        return torch.cat(energies), torch.cat(forces)

    def energies(self, line: Line, t: Tensor) -> Tensor:
        """The energies [F] alone, of a few points."""
        with torch.no_grad():
            energy = self.potential.model(line.frames(t, self.dtype).to(self.device))
        return self.scale * energy[:, 0].cpu().double()


class Found(NamedTuple):
    """Of one line: energies [F], differences that exceed what is explained, and what is left of the largest changes."""

    energy: Tensor
    exceeding: int
    energy_jump: float  # eV
    force_jump: float  # eV/Å
    force_jumps: bool


def jumps(energy: Tensor, slope: Tensor, step: float, noise: float = 0.0) -> Tensor:
    """Which differences of energies [F - 1] exceed five times what slopes and their change nearby explain.

    Args:
        energy, slope: [F] along a path, slope by the same length as `step`, F at least 12.
        noise: rounding of an energy.
    """
    unexplained = (energy.diff() - step * (slope[1:] + slope[:-1]) / 2).abs()
    bend = torch.nn.functional.max_pool1d(slope.diff().abs()[None], 11, 1, 5)[0]
    return unexplained > 5 * step / 2 * bend + noise


def follow(surface: Surface, line: Line, points: int) -> Found:
    """Measure one line at `points` points."""
    t = torch.linspace(0, 1, points, dtype=torch.float64)
    energy, forces = surface(line, t)
    exceeding = int(unexplained(surface, line, energy, forces).sum())
    energy_jump = energy_left(surface, line, energy)
    return Found(energy, exceeding, energy_jump, *force_left(surface, line, forces))


def unexplained(surface: Surface, line: Line, energy: Tensor, forces: Tensor) -> Tensor:
    """Which differences of energies [F - 1] at evenly spread points of a line are `jumps`, given forces [F, N, 3]."""
    slope = -(forces * line.move).sum((1, 2))
    noise = _rounding(surface) * (float(energy.abs().max()) + surface.scale)
    return jumps(energy, slope, 1 / (len(energy) - 1), noise)


def energy_left(surface: Surface, line: Line, energy: Tensor) -> float:
    """What is left, eV, of the most sudden change of the energies [F] at evenly spread points of a line."""
    start, end = _most_sudden(energy[:, None])
    return remaining(lambda t: surface.energies(line, t)[:, None], start, end, _shortest(surface, line))[1]


def force_left(surface: Surface, line: Line, forces: Tensor) -> tuple[float, bool]:
    """What is left, eV/Å, of the most sudden change of the forces [F, N, 3], and whether it is a jump."""
    start, end = _most_sudden(forces.flatten(1))
    shortest = _shortest(surface, line)
    before, left, ratio = remaining(lambda t: surface(line, t)[1].flatten(1), start, end, shortest)
    # a force with a slope changes in proportion to the distance; twenty times more is allowed where the slope varies
    allowed = min(0.5, 20 * ratio) * before + _rounding(surface) * float(forces.abs().max())
    return left, left > allowed


def _rounding(surface: Surface) -> float:
    return 64 * torch.finfo(surface.dtype).eps


def _shortest(surface: Surface, line: Line) -> float:
    return torch.finfo(surface.dtype).eps ** 0.5 / line.length()


def _most_sudden(values: Tensor) -> tuple[Tensor, Tensor]:
    """Where on a line, at evenly spread points of which `values` [F, V] are known, one changes most suddenly."""
    t = torch.linspace(0, 1, len(values), dtype=torch.float64)
    number = int(sudden(values).argmax())
    return t[number], t[number + 1]


def sudden(values: Tensor) -> Tensor:
    """[F - 1]: how far a change of any of `values` [F, V] is from the mean of those before and after; 0 at the ends."""
    change = values.diff(dim=0)
    inner = (change[1:-1] - (change[:-2] + change[2:]) / 2).abs().amax(1)
    return torch.nn.functional.pad(inner, (1, 1))


def remaining(values, start: Tensor, end: Tensor, shortest: float) -> tuple[float, float, float]:
    """What is left of a change between start and end where `values(t [F])` [F, V] change most suddenly.

    Looked at ever closer, until the interval is no longer than `shortest`.
    Returns the change from start to end, that over the last interval, and the length of that over the first.
    """
    first, before = float(end - start), None
    while True:
        t = start + (end - start) * torch.arange(-1, PARTS + 2, dtype=torch.float64) / PARTS
        found = values(t)
        before = float((found[-2] - found[1]).abs().max()) if before is None else before
        number = 1 + int(sudden(found)[1:-1].argmax())
        start, end = t[number], t[number + 1]
        if float(end - start) <= shortest:
            return before, float((found[number + 1] - found[number]).abs().max()), float(end - start) / first


def minima(energy: Tensor) -> int:
    """How many minima of a curve [F] in eV are deeper than DEPTH on both sides, ends not counted."""
    return len(find_peaks(-energy.numpy(), prominence=DEPTH)[0])
