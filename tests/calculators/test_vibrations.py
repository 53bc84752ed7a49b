"""The Hessian of a calculator, and what ASE makes of it."""

import numpy as np
import pytest
from ase.build import molecule
from ase.optimize import BFGS
from ase.vibrations import VibrationsData
from test_calculator import potential, rattled_slab

from spherenet_fast.calculators.ase import SphereNetCalculator

STEP = 1e-4  # Å


def hessian_from_differences(atoms):
    rows = []
    for coordinate in range(3 * len(atoms)):
        forces = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions.reshape(-1)[coordinate] += sign * STEP
            moved.calc = atoms.calc
            forces.append(moved.get_forces())
        rows.append((forces[1] - forces[0]) / (2 * STEP))
    return np.array(rows).reshape(len(atoms), 3, len(atoms), 3)


def test_the_hessian_of_relaxed_ethanol(trained):
    atoms = molecule("CH3CH2OH")
    atoms.calc = SphereNetCalculator(trained, dtype="float64")
    assert BFGS(atoms, logfile=None, maxstep=0.05).run(fmax=0.01, steps=200)
    hessian = atoms.calc.get_hessian(atoms)
    assert hessian.shape == (9, 3, 9, 3) and np.abs(hessian).max() > 0.1
    assert np.abs(hessian - hessian_from_differences(atoms)).max() < 1e-4  # eV/Å^2
    assert np.abs(hessian - hessian.transpose(2, 3, 0, 1)).max() < 1e-8
    vibrations = VibrationsData(atoms, hessian)
    slowest = np.sort(np.abs(vibrations.get_energies()))[:3]
    # translations: sqrt(rounding 1e-13 eV/Å^2 / mass) in units of 64 meV for 1 eV/Å^2 and 1 u
    assert (slowest < 1e-6).all()


def test_the_block_of_an_adsorbate():
    atoms = rattled_slab()
    calculator = SphereNetCalculator(potential())
    whole, block = calculator.get_hessian(atoms), calculator.get_hessian(atoms, indices=[7, 4], batch_size=2)
    chosen = np.array([7, 4])
    assert block == pytest.approx(whole[chosen][:, :, chosen], abs=1e-10)  # rounding
    assert VibrationsData(atoms, block, indices=[7, 4]).get_energies().shape == (6,)


def test_parts_out_of_reach_of_each_other_share_no_block():
    atoms = molecule("CH3CH2OH")
    atoms.positions[5:] += [20, 0, 0]
    hessian = SphereNetCalculator(potential()).get_hessian(atoms)
    assert not hessian[:5, :, 5:].any() and hessian[5:, :, 5:].any()
