"""The ASE calculator: units, derivatives, cells."""

import warnings

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_stress
from ase.filters import FrechetCellFilter
from ase.md.nptberendsen import NPTBerendsen
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.optimize import BFGS
from training_runs import TINY_MODEL

from spherenet_fast.calculators.ase import SphereNetCalculator
from spherenet_fast.data import conversion
from spherenet_fast.models import SphereNet
from spherenet_fast.training import Potential
from spherenet_fast.training.normalization import Normalization

pytestmark = pytest.mark.filterwarnings("ignore:the energy of a model with the paper's torsion")


def potential(names=("energy",), units=("kcal/mol",), dtype=torch.float64, elements=None, seed=0, **hparams):
    torch.manual_seed(seed)
    model = SphereNet(out_channels=len(names), **TINY_MODEL, **hparams).to(dtype)
    with torch.no_grad():  # the last layers start at 0, which would make every energy the same
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    references = torch.arange(95, dtype=torch.float64).expand(len(names), 95).clone()
    scale = torch.full((len(names),), 2.0, dtype=torch.float64)
    return Potential(model, Normalization(references, 0 * scale, scale), names, units, elements=elements)


def numerical_forces(atoms, step=1e-4):
    forces = np.zeros((len(atoms), 3))
    for atom, axis in np.ndindex(*forces.shape):
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * step
            moved.calc = atoms.calc
            energies.append(moved.get_potential_energy())
        forces[atom, axis] = -(energies[0] - energies[1]) / (2 * step)
    return forces


def water_in_a_cell():
    atoms = molecule("H2O", cell=[3.1, 3.3, 3.7], pbc=[True, True, False])
    atoms.rattle(0.05, seed=1)
    return atoms


@pytest.mark.parametrize("make", [lambda: molecule("CH3OH"), water_in_a_cell])
def test_forces_are_the_numerical_derivative(make):
    atoms = make()
    atoms.rattle(0.02, seed=3)
    atoms.calc = SphereNetCalculator(potential())
    forces = atoms.get_forces()
    assert np.abs(forces).max() > 1e-3
    # Central differences: error of order step^2 = 1e-8 times third derivatives, rounding 1e-15 * 20 eV / 1e-4.
    assert forces == pytest.approx(numerical_forces(atoms), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("make", [lambda: molecule("CH3OH"), water_in_a_cell])
def test_the_kernels_give_what_the_readable_operators_do(make):
    atoms, found = make(), []
    for kernels in (True, False):
        atoms.calc = SphereNetCalculator(potential(kernels=kernels))
        found.append((atoms.get_potential_energy(), atoms.get_forces()))
    assert potential().model.hparams["kernels"] is True  # what all other tests here run on
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)
    # float64; forces of an eV/Å, whose terms cancel in part
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-9, abs=1e-11)


def test_energies_are_in_electronvolt():
    atoms = molecule("H2O")
    values = []
    for unit in ("kcal/mol", "eV"):
        atoms.calc = SphereNetCalculator(potential(units=(unit,)))
        values.append((atoms.get_potential_energy(), atoms.get_forces()))
    factor = conversion("kcal/mol", "eV")
    assert values[0][0] == pytest.approx(factor * values[1][0])
    assert values[0][1] == pytest.approx(factor * values[1][1])
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()


def test_a_unit_that_the_potential_knows_is_the_one_that_counts():
    atoms = molecule("H2O")
    energies = []
    for unit in (None, "eV"):
        atoms.calc = SphereNetCalculator(potential(), unit=unit)  # in kcal/mol
        energies.append(atoms.get_potential_energy())
    assert energies[0] == energies[1]


def test_a_repeated_cell_has_a_repeated_energy():
    # Longer than the cutoff, so that no edge runs along a lattice vector: about such an edge the images of an atom
    # share one azimuth, and the forces at an exact tie may follow the numbering of the edges.
    atoms = water_in_a_cell()
    calculator = SphereNetCalculator(potential())
    single, double = atoms.copy(), atoms.repeat((2, 1, 1))
    single.calc = double.calc = calculator
    # The same sums over neighbors in another order, in float64.
    assert double.get_potential_energy() == pytest.approx(2 * single.get_potential_energy(), rel=1e-12)
    assert double.get_forces()[:3] == pytest.approx(single.get_forces(), abs=1e-10)


def rattled_copper():
    atoms = bulk("Cu", cubic=True)
    atoms.set_cell(atoms.cell.array + [[0, 0.1, 0], [0, 0, 0.2], [0.1, 0, 0]], scale_atoms=True)
    atoms.rattle(0.05, seed=2)
    return atoms


def rattled_slab():
    atoms = fcc111("Cu", (2, 2, 2), vacuum=4.0)  # repeats in two directions
    atoms.rattle(0.05, seed=2)
    return atoms


@pytest.mark.parametrize("make", [rattled_copper, rattled_slab])
def test_stress_is_the_numerical_derivative(make):
    atoms = make()
    atoms.calc = SphereNetCalculator(potential())
    stress = atoms.get_stress()
    assert stress.shape == (6,) and np.abs(stress).max() > 1e-4
    # Central differences of 1e-6: rounding 1e-14 * 100 eV / (1e-6 * 50 Å^3).
    expected = calculate_numerical_stress(atoms, eps=1e-6, voigt=True)
    assert stress == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_stress_comes_with_energy_and_forces():
    alone, together = rattled_copper(), rattled_copper()
    alone.calc, together.calc = (SphereNetCalculator(potential()) for _ in range(2))
    together.get_stress()
    assert {"energy", "free_energy", "forces", "stress"} == together.calc.results.keys()
    assert together.get_potential_energy() == alone.get_potential_energy()
    # The virial is one more derivative of the same energy; the forces are the same sums.
    assert together.get_forces() == pytest.approx(alone.get_forces(), abs=1e-12)


def test_a_cell_relaxes_until_nothing_pulls_on_it():
    atoms = bulk("Cu")
    atoms.calc = SphereNetCalculator(potential())
    before = np.abs(atoms.get_stress()).max()
    energy = atoms.get_potential_energy()
    BFGS(FrechetCellFilter(atoms), logfile=None, maxstep=0.05).run(fmax=1e-3, steps=15)
    assert np.abs(atoms.get_stress()).max() < before / 2
    assert atoms.get_potential_energy() < energy


def test_molecular_dynamics_at_constant_pressure_changes_the_cell():
    atoms = rattled_copper()
    atoms.calc = SphereNetCalculator(potential())
    MaxwellBoltzmannDistribution(atoms, temperature_K=300, rng=np.random.default_rng(0))
    volume = atoms.get_volume()
    NPTBerendsen(atoms, timestep=0.1, temperature_K=300, pressure_au=0.0, compressibility_au=1.0, taut=10, taup=10).run(
        3
    )
    assert np.isfinite(atoms.positions).all() and atoms.get_volume() != volume


@pytest.mark.parametrize(
    "cell, pbc",
    [
        (None, False),
        ([5, 5, 5], False),
        ([5, 5, 0], [True, True, False]),
        ([[5, 0, 0], [0, 5, 0], [5, 5, 0]], [True, True, False]),
    ],
)
def test_no_volume_no_stress(cell, pbc):
    atoms = molecule("H2O", cell=cell, pbc=pbc)
    atoms.calc = SphereNetCalculator(potential())
    with pytest.raises(PropertyNotImplementedError, match="stress: expected atoms that repeat, in a cell of three"):
        atoms.get_stress()
    assert np.isfinite(atoms.get_forces()).all()


def test_results_follow_the_atoms():
    atoms = molecule("H2O")
    atoms.calc = SphereNetCalculator(potential(dtype=torch.float32))
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    assert isinstance(energy, float) and forces.dtype == np.float64
    atoms.positions[0, 2] += 0.2
    assert atoms.get_potential_energy() != energy
    assert not np.allclose(atoms.get_forces(), forces)


def test_a_checkpoint_will_do(tmp_path):
    potential().save(tmp_path / "p.pt")
    atoms = molecule("H2O")
    energies = []
    for source in (tmp_path / "p.pt", str(tmp_path / "p.pt"), potential()):
        atoms.calc = SphereNetCalculator(source, device="cpu")
        energies.append(atoms.get_potential_energy())
    assert len(set(energies)) == 1


def test_what_a_calculator_cannot_be_made_of():
    with pytest.raises(ValueError, match="expected one that predicts an energy, got gap in eV"):
        SphereNetCalculator(potential(("gap",), ("eV",)))
    with pytest.raises(ValueError, match="predicts an energy, got mu in D"):
        SphereNetCalculator(potential(("mu",), ("D",)))
    with pytest.raises(ValueError, match="predicts an energy alone, got U0, gap"):
        SphereNetCalculator(potential(("U0", "gap"), ("eV", "eV")))
    with pytest.raises(ValueError, match="unit: expected the unit of the energy"):
        SphereNetCalculator(potential(units=(None,)))
    assert SphereNetCalculator(potential(units=(None,)), unit="eV")
    with pytest.raises(FileNotFoundError):
        SphereNetCalculator("nowhere.ckpt")


def test_a_model_whose_energy_jumps_is_said_to_be_one_once(tmp_path):
    first, path = potential(torsion="paper"), tmp_path / "best.ckpt"
    first.save(path)
    message = "torsion jumps .* up to 110 meV .*: .* train with model.torsion=smooth"
    for given in (first, path):
        with pytest.warns(UserWarning, match=message):
            SphereNetCalculator(given)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            SphereNetCalculator(given if given is first else str(path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SphereNetCalculator(potential())
        SphereNetCalculator(potential(use_torsion=False))
        SphereNetCalculator(potential(use_torsion=False, use_angle=False))


def test_unknown_elements_are_refused():
    atoms = Atoms("SiH", [[0, 0, 0], [0, 0, 1.5]])
    atoms.calc = SphereNetCalculator(potential(elements=(1, 6)))
    with pytest.raises(ValueError, match=r"elements of the training set \(H, C\), got Si"):
        atoms.get_potential_energy()


@pytest.mark.parametrize("make", [lambda: molecule("CH3OH"), water_in_a_cell])
def test_recorded_operators_change_no_bit(make):
    atoms, replayed = make(), make()
    atoms.calc, replayed.calc = (SphereNetCalculator(potential()) for _ in range(2))
    atoms.calc.potential.recorded.after, replayed.calc.potential.recorded.after = 10**9, 2
    properties = ["forces", "stress"] if atoms.pbc.any() else ["forces"]
    for seed in range(5):
        for structure in (atoms, replayed):
            structure.rattle(0.05, seed=seed)
        for name in properties:
            expected = atoms.calc.get_property(name, atoms)
            assert np.array_equal(replayed.calc.get_property(name, replayed), expected)
        assert replayed.get_potential_energy() == atoms.get_potential_energy()
    assert len(replayed.calc.potential.recorded._recordings) == 1  # what was asked for once comes with all the rest
