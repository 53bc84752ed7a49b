"""The checks of a potential on one structure, and the limits by which it passes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from ..calculators.ase import SphereNetCalculator
from ..dynamics.structures import bare, largest_force
from ..dynamics.watching import CheckedCalculator, NotPhysical
from ..training.potential import Potential
from ..training.results import energy_factor
from .continuity import Surface, energy_left, force_left, minima, sudden, unexplained
from .energy import constant_energy, drift
from .lines import Line, out_of_plane, stretches

STEP = 1e-4  # Å, of differences: their own error is some 1e-6 eV/Å
STRETCH = (0.8, 1.4)  # times the length of a bond: dynamics at 1,000 K does not go beyond
CLOSER = 3  # lines of each kind on which the most sudden change is looked at ever closer


@dataclass
class Limits:
    """What passes.

    Attributes:
        force_error: eV/Å between a force and the difference of energies; exact forces are a hundred times below.
        jump: meV, of the energy where atoms do not move; smooth energies have a millionth.
        force_jump: eV/Å; a relaxation to 0.01 eV/Å would not notice a tenth of that.
        mirror: meV between a structure and its mirror image, which have the same energy in nature; a good model is as
            far from nature.
        drift: meV per atom and ps at constant energy: a temperature that is 1 K off after a picosecond.
    """

    force_error: float = 1e-4
    jump: float = 0.1
    force_jump: float = 1e-3
    mirror: float = 5.0
    drift: float = 0.1

    def __post_init__(self):
        for name, value in vars(self).items():
            if not value >= 0:
                raise ValueError(f"--max-{name.replace('_', '-')}: expected a number of at least 0, got {value:g}")


class Row(NamedTuple):
    """A measured number, and the largest that passes; None: any does."""

    name: str
    value: float
    unit: str
    limit: float | None = None

    @property
    def passed(self) -> bool:
        return self.limit is None or bool(self.value <= self.limit)


class Curve(NamedTuple):
    """Energies [F] in meV less the first or lowest, over x [F]."""

    x: np.ndarray
    energy: np.ndarray


class Checked(NamedTuple):
    """What was found. curves: of a picture, by what is on their x axis."""

    rows: list[Row]
    curves: dict[str, list[Curve]]

    @property
    def passed(self) -> bool:
        return all(row.passed for row in self.rows)


def check_potential(
    potential: Potential,
    atoms: Atoms,
    limits: Limits | None = None,
    *,
    lines: int = 30,
    points: int = 41,
    picoseconds: float = 1.0,
    timestep: float = 0.5,
    temperature: float = 300.0,
    seed: int = 0,
    report: Callable[[str], None] = lambda text: None,
) -> Checked:
    """Measure a potential around one structure, which is best a minimum.

    Dynamics is computed in the dtype that the model has; everything else in float64, to which the model is converted.

    Args:
        potential: of an energy whose unit is known.
        lines: at most so many bonds and so many atoms, spread evenly over the structure, are moved.
        points: of a line, at least 12. picoseconds: of dynamics; 0: none. timestep: fs. temperature: K, at its start.
        report: told what is being done.

    Raises:
        ValueError: an argument is out of range, or what `SphereNetCalculator` refuses.
    """
    _check_arguments(points, picoseconds, timestep, temperature)
    limits, atoms = limits or Limits(), bare(atoms)
    atoms.set_momenta(None)
    calculator = SphereNetCalculator(potential)
    moved = _dynamics(calculator, atoms.copy(), limits, picoseconds, timestep, temperature, seed, report)
    potential.model.double()
    report("forces and differences of energies")
    rows = [_largest_force(calculator, atoms), _force_error(calculator, atoms, limits, lines)]
    rows.append(_mirror_image(calculator, atoms, limits))
    surface, curves = Surface(potential, energy_factor(potential)), {}
    for name, axis, group in _lines(atoms, lines):
        report(f"{name}, {len(group)}")
        found, curves[axis] = _continuity(surface, name, group, points, limits)
        rows += found
    return Checked(rows + moved[0], curves | moved[1])


def _check_arguments(points: int, picoseconds: float, timestep: float, temperature: float) -> None:
    if points < 12:
        raise ValueError(f"--points: expected at least 12, got {points}")
    for name, value, least in (("picoseconds", picoseconds, 0), ("timestep", timestep, 1e-6),
                               ("temperature", temperature, 0)):  # fmt: skip
        if not (np.isfinite(value) and value >= least):
            raise ValueError(f"--{name}: expected a number {'above' if least else 'of at least'} 0, got {value:g}")
    if picoseconds and 1000 * picoseconds < 2 * timestep:  # fewer have no drift
        raise ValueError(f"--picoseconds: expected 0 or two steps of {timestep:g} fs and more, got {picoseconds:g}")


def _largest_force(calculator: SphereNetCalculator, atoms: Atoms) -> Row:
    return Row("largest force of the structure", largest_force(calculator.evaluate([atoms])[0].get_forces()), "eV/Å")


def _force_error(calculator: SphereNetCalculator, atoms: Atoms, limits: Limits, most: int) -> Row:
    moved, numbers = [], _spread(len(atoms), most)
    for atom in numbers:
        for axis in range(3):
            for sign in (1, -1):
                moved.append(atoms.copy())
                moved[-1].positions[atom, axis] += sign * STEP
    energies = np.array([one.get_potential_energy() for one in calculator.evaluate(moved, ["energy"])])
    slopes = (energies[::2] - energies[1::2]) / (2 * STEP)
    forces = calculator.evaluate([atoms])[0].get_forces(apply_constraint=False)[numbers]
    return Row("forces against differences", float(np.abs(slopes + forces.ravel()).max()), "eV/Å", limits.force_error)


def _mirror_image(calculator: SphereNetCalculator, atoms: Atoms, limits: Limits) -> Row:
    image = atoms.copy()
    image.set_cell(image.cell.array * [-1, 1, 1], scale_atoms=False)
    image.positions *= [-1, 1, 1]
    one, other = (found.get_potential_energy() for found in calculator.evaluate([atoms, image], ["energy"]))
    return Row("mirror image", 1000 * abs(other - one), "meV", limits.mirror)


def _lines(atoms: Atoms, most: int) -> list[tuple[str, str, list[Line]]]:
    """What is looked at, what a picture has on its x axis, and the lines; of cells bonds are not stretched."""
    z, pos = torch.from_numpy(atoms.numbers).long(), torch.from_numpy(atoms.get_positions())
    found = [("out of plane", "out of plane (Å)", out_of_plane(z, pos))]
    if atoms.pbc.any():
        cell, pbc = torch.from_numpy(atoms.cell.array.copy()), torch.from_numpy(atoms.pbc.copy())
        found = [(*names, [line._replace(cell=cell, pbc=pbc) for line in lines]) for *names, lines in found]
    else:
        found = [("bonds", "length of a bond less its own (Å)", stretches(z, pos, *STRETCH)), *found]
    return [
        (name, axis, [lines[number] for number in _spread(len(lines), most)]) for name, axis, lines in found if lines
    ]


def _spread(count: int, most: int) -> np.ndarray:
    """At most so many of the numbers 0 to count - 1, spread evenly."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))


def _continuity(
    surface: Surface, name: str, lines: list[Line], points: int, limits: Limits
) -> tuple[list[Row], list[Curve]]:
    t = torch.linspace(0, 1, points, dtype=torch.float64)
    on_lines = [(line, *surface(line, t)) for line in lines]
    unlike = sum(int(unexplained(surface, *each).sum()) for each in on_lines)
    energy = max(energy_left(surface, line, energy) for line, energy, _ in _worst(on_lines, 1))
    force = max(force_left(surface, line, forces)[0] for line, _, forces in _worst(on_lines, 2))
    rows = [
        Row(f"{name}: energy differences that forces do not explain", unlike, f"of {len(lines) * (points - 1)}", 0),
        Row(f"{name}: jump of the energy", 1000 * energy, "meV", limits.jump),
        Row(f"{name}: jump of a force", force, "eV/Å", limits.force_jump),
    ]
    if name == "bonds":
        rows.append(Row("bonds: minima beyond one", sum(max(0, minima(energy) - 1) for _, energy, _ in on_lines), ""))
    zero = STRETCH if name == "bonds" else (-0.5, 0.5)
    curves = []
    for line, energy, _ in on_lines:
        length = line.length() / (zero[1] - zero[0])
        x = length * (zero[0] + (zero[1] - zero[0]) * t) - (length if name == "bonds" else 0)
        curves.append(Curve(x.numpy(), 1000 * (energy - energy.min()).numpy()))
    return rows, curves


def _worst(on_lines: list[tuple[Line, Tensor, Tensor]], values: int) -> list[tuple[Line, Tensor, Tensor]]:
    """Those on which the energies (values: 1) or forces (2) change most suddenly."""
    size = [float(sudden(each[values].reshape(len(each[values]), -1)).max()) for each in on_lines]
    return [on_lines[number] for number in np.argsort(size)[::-1][:CLOSER]]


def _dynamics(
    calculator, atoms: Atoms, limits: Limits, picoseconds, timestep, temperature, seed, report
) -> tuple[list[Row], dict[str, list[Curve]]]:
    if not picoseconds:
        return [], {}
    report(f"{picoseconds:g} ps at constant energy")
    atoms.calc = CheckedCalculator(calculator, stress=False)
    unit = "meV/atom/ps"
    try:
        energies, seconds = constant_energy(atoms, timestep, picoseconds, temperature, seed)
    except NotPhysical as error:
        report(f"dynamics: {error}")
        return [Row("drift at constant energy", float("inf"), unit, limits.drift)], {}
    slope, _, step, _ = drift(energies, timestep, len(atoms))
    rows = [
        Row("drift at constant energy", abs(slope), unit, limits.drift),
        Row("largest change of the energy in a step", step, "meV"),
        Row("time of a step", 1000 * seconds, "ms"),
    ]
    times = 1e-3 * timestep * np.arange(len(energies))
    return rows, {"time (ps)": [Curve(times, 1000 * (energies - energies[0]))]}
