"""The Hessian of a calculator, what ASE makes of it, and ``spherenet-fast vib``."""

import json

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms
from ase.optimize import BFGS
from ase.thermochemistry import IdealGasThermo
from ase.vibrations import VibrationsData
from commands import call
from test_calculator import potential, rattled_slab

from spherenet_fast.calculators.ase import SphereNetCalculator
from spherenet_fast.dynamics.vibrations import thermochemistry, vibrations

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
    assert calculator.get_hessian(atoms, indices=[]).shape == (0, 3, 0, 3)
    for wrong in (atoms.positions[:, 2] > 0, [0.5], 7, ["7"]):  # a mask and fractions would pass for numbers
        with pytest.raises(ValueError, match="indices: expected a sequence of integers, got"):
            calculator.get_hessian(atoms, indices=wrong)


def test_parts_out_of_reach_of_each_other_share_no_block():
    atoms = molecule("CH3CH2OH")
    atoms.positions[5:] += [20, 0, 0]
    hessian = SphereNetCalculator(potential()).get_hessian(atoms)
    assert not hessian[:5, :, 5:].any() and hessian[5:, :, 5:].any()


class Argon(LennardJones):
    """A Lennard-Jones fluid with a Hessian."""

    def __init__(self):
        super().__init__(epsilon=0.0103, sigma=3.4, rc=1000.0, smooth=False)

    def get_hessian(self, atoms, indices=None, batch_size=None):
        chosen = np.arange(len(atoms)) if indices is None else np.array(indices)
        copy = atoms.copy()
        copy.calc = LennardJones(**self.parameters)
        return hessian_from_differences(copy)[chosen][:, :, chosen]


def argon(count):
    """Two or three atoms at their minimum, and the frequency 1/cm of two."""
    bond = 2 ** (1 / 6) * 3.4
    atoms = Atoms(f"Ar{count}", [[0, 0, 0], [bond, 0, 0], [bond / 2, bond * 3**0.5 / 2, 0]][:count])
    curvature = 36 * 2 ** (2 / 3) * 0.0103 / 3.4**2
    omega = (2 * curvature / atoms.get_masses()[0]) ** 0.5
    return atoms, units._hbar * omega * units.s / units._e / units.invcm


def test_modes_of_small_molecules():
    one = vibrations(Argon(), Atoms("Ar"))
    assert one.geometry == "monatomic" and len(one.energies()) == 0 and one.zero_point_energy() == 0
    # of a monatomic gas at rest: H = 5/2 k T
    assert thermochemistry(one, 300.0)["enthalpy H"] == pytest.approx(2.5 * units.kB * 300)
    pair, expected = argon(2)
    pair.rotate(33, (1, 2, 3))
    two = vibrations(Argon(), pair)
    # differences of 1e-4 Å
    assert two.geometry == "linear" and two.frequencies() == pytest.approx([expected], rel=1e-4)
    three = vibrations(Argon(), argon(3)[0])
    assert three.geometry == "nonlinear"
    # of a triangle with bonds k: sqrt(3/4), twice, and sqrt(3/2) times the frequency of the pair
    assert three.frequencies() == pytest.approx(np.sqrt([0.75, 0.75, 1.5]) * expected, rel=1e-4)
    # projected out, to the square root of rounding
    assert np.abs(three.data.get_energies()[three.rigid]).max() < 1e-6
    found = thermochemistry(three, 100.0, 5e4, symmetry_number=6)
    gas = IdealGasThermo(
        three.energies(), "nonlinear", three.energy, three.atoms, symmetrynumber=6, spin=0,
    )  # fmt: skip
    assert found["Gibbs energy G"] == pytest.approx(gas.get_gibbs_energy(100.0, 5e4, verbose=False))
    assert found["Gibbs energy G"] == pytest.approx(found["enthalpy H"] - 100 * found["entropy S"])


def test_structures_that_are_no_minimum():
    atoms, _ = argon(3)
    atoms.positions[1] *= 1.03
    with pytest.raises(ValueError, match="expected forces of at most 0.05 eV/Å.*--relax"):
        vibrations(Argon(), argon(2)[0] + Atoms("Ar", [[2.0, 2.5, 0]]))
    relaxed = vibrations(Argon(), atoms, relax=True, fmax=1e-5)
    assert relaxed.fmax < 1e-5 and relaxed.frequencies() == pytest.approx(
        vibrations(Argon(), argon(3)[0]).frequencies(), rel=1e-3
    )  # forces of 1e-5 move the soft bonds of argon by 1e-4 of their length
    line = Atoms("Ar3", [[0, 0, 0], [3.8164, 0, 0], [-3.8164, 0, 0]])  # a saddle: it bends by itself
    saddle = vibrations(Argon(), line, relax=True, fmax=1e-6)
    assert saddle.geometry == "linear" and (saddle.energies() < 0).sum() == 2
    with pytest.raises(ValueError, match="expected a minimum, got 2 imaginary modes"):
        thermochemistry(saddle)


def test_atoms_that_are_held_do_not_vibrate():
    atoms, expected = argon(2)
    atoms.set_constraint(FixAtoms([0]))
    held = vibrations(Argon(), atoms)
    # one end alone moves: its mass instead of the reduced one, half of it
    assert held.geometry is None and held.frequencies()[-1] == pytest.approx(expected / 2**0.5, rel=1e-4)
    chosen = vibrations(Argon(), argon(2)[0], indices=[1])
    assert chosen.frequencies() == pytest.approx(held.frequencies(), abs=1e-6)
    stiff = chosen._replace(vibrating=chosen.vibrating[-1:])
    found = thermochemistry(stiff, 50.0)
    assert found["Helmholtz energy F"] == pytest.approx(found["internal energy U"] - 50 * found["entropy S"])
    with pytest.raises(ValueError, match=r"--atoms: expected numbers from 0 to 1, got \[7\]"):
        vibrations(Argon(), argon(2)[0], indices=[7])


def test_the_command(trained, tmp_path):
    ase.io.write(tmp_path / "ethanol.xyz", molecule("CH3CH2OH"))
    files = ["-o", tmp_path / "a.json", "--modes", tmp_path / "modes"]
    status, out, err = call("vib", trained, tmp_path / "ethanol.xyz", "--relax", "--fmax", 0.01, *files)
    assert status == 0, err
    facts = json.loads((tmp_path / "a.json").read_text())
    assert len(facts["frequencies_cm1"]) == 21 and facts["geometry"] == "nonlinear"
    assert facts["largest_force_eV_per_Ang"] <= 0.01 and f"zero-point energy {facts['zero_point_energy_eV']:.6f}" in out
    assert ("Gibbs energy G" in out) == (facts["frequencies_cm1"][0] > 0) == bool(facts["thermochemistry_eV"])
    frames = ase.io.read(tmp_path / "modes" / "mode-020.extxyz", ":")
    assert len(frames) == 30 and np.ptp([frame.positions for frame in frames], axis=0).max() > 0.01  # O-H stretches
    status, _, err = call("vib", trained, tmp_path / "ethanol.xyz")
    assert status == 2 and "--relax relaxes it first" in err and err.count("\n") == 1
    for options, text in (
        (["--temperature", 0], "--temperature: expected a number above 0, got 0"),
        (["--atoms", "a"], "--atoms: expected numbers with commas between them, got 'a'"),
        (["-o", tmp_path / "a.txt"], "--out: expected a name that ends in .csv or .json"),
        (["-o", tmp_path / "a.json"], "--overwrite replaces it"),
        (["--relax", "--steps", 1], "--relax: expected forces below 0.001 eV/Å after 1 steps"),
    ):
        status, _, err = call("vib", trained, tmp_path / "ethanol.xyz", *options)
        assert status == 2 and text in err
