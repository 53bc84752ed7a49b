"""Dynamics on smooth torsions: energies along paths on which the paper's rule jumps, and energy that is kept."""

import numpy as np
import pytest
import torch
from ase import units
from ase.build import molecule
from ase.md.velocitydistribution import Stationary
from ase.md.verlet import VelocityVerlet
from small_models import small_model

from spherenet_fast.calculators.ase import SphereNetCalculator
from spherenet_fast.training import Potential

BENZENE_HYDROGEN = 6
THERMAL = 300 * units.kB  # eV


def out_of_plane(model, points):
    """Energies [points] and out-of-plane forces of one hydrogen of benzene from -0.1 to 0.1 Å off its plane."""
    atoms = molecule("C6H6")
    heights = torch.linspace(-0.1, 0.1, points, dtype=torch.float64)
    pos = torch.from_numpy(atoms.positions).repeat(points, 1, 1)
    pos[:, BENZENE_HYDROGEN, 2] += heights
    batch = torch.arange(points).repeat_interleave(len(atoms))
    data = {"z": torch.from_numpy(atoms.numbers).repeat(points), "pos": pos.reshape(-1, 3), "batch": batch}
    energy, forces = model.energy_and_forces(data)
    return energy[:, 0].detach(), forces.reshape(points, -1, 3)[:, BENZENE_HYDROGEN, 2].detach()


def unexplained(model, points):
    """The largest difference of two neighboring energies from the trapezoid rule of their forces."""
    energy, force = out_of_plane(model.eval(), points)
    step = 0.2 / (points - 1)
    return float((energy.diff() + step * (force[1:] + force[:-1]) / 2).abs().max())


@pytest.mark.parametrize("name", ["SphereNet", "SphereNet even under reflection", "SphereNet without torsion"])
def test_energies_through_planarity_are_those_of_the_forces(name):
    """The rule's error is of third order in the step: a step four times shorter divides it by 64, less rounding."""
    model = small_model(name)
    coarse, fine = unexplained(model, 41), unexplained(model, 161)
    assert fine < coarse / 40 + 1e-13


def test_the_papers_rule_jumps_at_planarity():
    """A jump does not get smaller with the step."""
    model = small_model("SphereNet with the paper's torsion")
    coarse, fine = unexplained(model, 41), unexplained(model, 161)
    assert fine > 0.5 * coarse and fine > 1e-4


def test_energy_is_kept_over_200_steps(trained):
    """Verlet's energy error is of second order in the timestep, bounded, and without drift."""
    potential = Potential.load(trained).double()
    runs = []
    for timestep, steps in ((0.5, 200), (0.25, 100)):
        atoms = molecule("CH3CH2OH")
        atoms.calc = SphereNetCalculator(potential)
        atoms.set_momenta(np.random.default_rng(0).normal(size=(9, 3)) * np.sqrt(atoms.get_masses() * THERMAL)[:, None])
        Stationary(atoms)
        dynamics = VelocityVerlet(atoms, timestep * units.fs)
        energies = []
        dynamics.attach(lambda: energies.append(atoms.get_total_energy()))
        dynamics.run(steps)
        runs.append(np.array(energies))
    assert np.ptp(runs[0]) < 0.1 * 13.5 * THERMAL  # of the kinetic energy at the start
    same_time = np.ptp(runs[0][:51])
    assert np.ptp(runs[1]) < same_time / 2.5  # a fourth, but for where the extremes fall between steps
