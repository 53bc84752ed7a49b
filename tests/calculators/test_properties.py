"""What a calculator computes, when, and how often; many structures at a time; dtypes and elements."""

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces
from commands import call
from test_calculator import potential, rattled_copper, rattled_slab, water_in_a_cell

from spherenet_fast.calculators.ase import SphereNetCalculator
from spherenet_fast.models import SphereNet
from spherenet_fast.nn.framework import GraphNetwork3D

pytestmark = pytest.mark.filterwarnings("ignore:the energy of a model with the paper's torsion")


@pytest.fixture
def evaluations(monkeypatch):
    """What each call of a model had to find the neighbors of: numbers of atoms."""
    found, neighbors = [], GraphNetwork3D.neighbors

    def counted(model, inputs):
        found.append(len(inputs.z))
        return neighbors(model, inputs)

    monkeypatch.setattr(GraphNetwork3D, "neighbors", counted)
    return found


def test_a_loop_over_energy_and_forces_costs_one_evaluation_more_than_steps(evaluations):
    atoms = molecule("CH3OH")
    atoms.calc = SphereNetCalculator(potential())
    for step in range(5):
        atoms.rattle(0.01, seed=step)
        atoms.get_potential_energy()
        atoms.get_forces()
    assert len(evaluations) == 5 + 1


def test_stress_and_energies_of_atoms_are_computed_from_when_they_are_asked_for(evaluations):
    atoms, calculator = water_in_a_cell(), SphereNetCalculator(potential())
    atoms.calc = calculator
    for step in range(3):
        atoms.rattle(0.01, seed=step)
        atoms.get_potential_energy()
        for ask in (atoms.get_stress, atoms.get_potential_energies, atoms.get_forces):
            ask()
    assert len(evaluations) == 3 + 2
    free = molecule("H2O")  # has no stress, but it was not asked for here
    free.calc = calculator
    free.get_potential_energy()
    assert set(calculator.results) == {"energy", "free_energy", "energies", "forces"}


def test_an_energy_alone_takes_no_derivative(monkeypatch):
    atoms = molecule("H2O")
    atoms.calc = SphereNetCalculator(potential())
    monkeypatch.setattr(torch.autograd, "grad", None)
    atoms.get_potential_energy()
    assert set(atoms.calc.results) == {"energy", "free_energy"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", [lambda: molecule("CH3OH"), rattled_copper])
def test_energies_of_atoms_add_up(make, dtype):
    """And are those of the potential, which spreads a shift over the atoms; asked for alone or with the rest."""
    atoms, trained = make(), potential(dtype=dtype)
    trained.shift += 100.0
    atoms.calc = SphereNetCalculator(trained)
    energies = atoms.get_potential_energies()
    assert energies.sum() == pytest.approx(atoms.get_potential_energy(), abs=1e-10)  # float64 sums of 1000 eV
    expected = trained(atoms.calc._batch(atoms), per_atom=True)[:, 0].detach().numpy() * 0.04336410390059322
    # float32: outputs of the network of 10, in kcal/mol, rounded to 1e-6
    assert energies == pytest.approx(expected, abs=1e-6 if dtype == torch.float32 else 1e-10)
    other = make()
    other.calc = SphereNetCalculator(trained)
    assert other.get_potential_energy() == atoms.get_potential_energy()
    assert np.array_equal(other.get_forces(), atoms.get_forces())


def test_energies_of_atoms_know_their_surroundings_alone():
    water, two = molecule("H2O"), molecule("H2O")
    two.extend(Atoms("CO", [[30, 0, 0], [31.2, 0, 0]]))
    water.calc = two.calc = SphereNetCalculator(potential())
    assert two.get_potential_energies()[:3] == pytest.approx(water.get_potential_energies(), abs=1e-10)


class Root(SphereNet):
    def phi_u(self, e_u, v_u, p_u):
        return v_u.tanh()


def test_a_model_that_is_no_sum_over_atoms_has_no_energies_of_atoms():
    atoms = molecule("H2O")
    atoms.calc = SphereNetCalculator(Root(num_layers=1, hidden_channels=8).double())
    with pytest.raises(PropertyNotImplementedError, match="energies"):
        atoms.get_potential_energies()
    [copy] = atoms.calc.evaluate([atoms])
    assert set(copy.calc.results) == {"energy", "free_energy", "forces"}


@pytest.mark.parametrize("make", [lambda: molecule("CH3CH2OH"), rattled_slab])
def test_forces_are_the_numerical_ones_of_ase(make):
    atoms = make()
    atoms.rattle(0.05, seed=4)
    atoms.calc = SphereNetCalculator(potential(), dtype="float64")
    # eV/Å: step^2 / 6 = 2e-9 times third derivatives, rounding of 1e-13 eV / 1e-4
    assert atoms.get_forces() == pytest.approx(calculate_numerical_forces(atoms, eps=1e-4), abs=1e-5)


def test_many_structures_are_evaluated_in_few_calls(evaluations):
    given = [molecule("H2O"), water_in_a_cell(), molecule("CH4"), water_in_a_cell(), molecule("CO")]
    calculator = SphereNetCalculator(potential())
    found = calculator.evaluate(given, ["energy", "energies", "forces", "stress"], batch_size=3)
    assert evaluations == [6, 3 + 5 + 2]  # those with a stress apart
    for before, after in zip(given, found, strict=True):
        before.calc = SphereNetCalculator(potential())
        assert after == before
        assert after.get_potential_energy() == pytest.approx(before.get_potential_energy(), rel=1e-12)
        assert after.get_potential_energies() == pytest.approx(before.get_potential_energies(), rel=1e-10)
        assert after.get_forces() == pytest.approx(before.get_forces(), abs=1e-10)
        assert ("stress" in after.calc.results) == before.pbc.any()
        if before.pbc.any():
            assert after.get_stress() == pytest.approx(before.get_stress(), abs=1e-12)
    assert calculator.evaluate([]) == []
    with pytest.raises(ValueError, match="properties: expected some of energy, .*, got dipole"):
        calculator.evaluate(given, ["dipole"])
    for number in (0, -1):
        with pytest.raises(ValueError, match=f"batch_size: expected at least 1, got {number}"):
            calculator.evaluate(given, batch_size=number)


def test_a_calculation_leaves_nothing_of_another_structure():
    """Also where `calculate` is called by itself, as calculators that are made of others do."""
    calculator = SphereNetCalculator(potential())
    calculator.calculate(water_in_a_cell(), ["stress"])
    calculator.calculate(molecule("H2O"), ["energy"])
    assert calculator.results.keys() == {"energy", "free_energy", "forces"}


def test_a_dtype_is_that_of_the_network():
    trained = potential(dtype=torch.float32)
    trained.atomic_energies += 1e5
    atoms = molecule("H2O")
    for dtype in ("float64", torch.float32):
        atoms.calc = SphereNetCalculator(trained, dtype=dtype)
        atoms.get_potential_energy()
    assert next(trained.parameters()).dtype == torch.float32 and trained.atomic_energies.dtype == torch.float64
    assert atoms.get_potential_energy() == pytest.approx(3e5 * 0.0433641, rel=1e-3)
    with pytest.raises(ValueError, match="dtype: expected float32 or float64, got 'float16'"):
        SphereNetCalculator(trained, dtype="float16")


def test_unseen_elements_are_let_through_on_request(tmp_path):
    atoms = Atoms("SiH", [[0, 0, 0], [0, 0, 1.5]])
    trained = potential(elements=(1, 6))
    for allowed in (False, True):
        calculator = SphereNetCalculator(trained, allow_unseen_elements=allowed)
        atoms.calc = calculator
        for ask in (atoms.get_potential_energy, calculator.get_hessian, lambda: calculator.evaluate([atoms])):
            if allowed:
                ask()
            else:
                with pytest.raises(ValueError, match=r"elements of the training set \(H, C\), got Si"):
                    ask()
    trained.save(tmp_path / "p.ckpt")
    ase.io.write(tmp_path / "in.xyz", atoms)
    command = ["predict", tmp_path / "p.ckpt", tmp_path / "in.xyz", "-o", tmp_path / "out.xyz"]
    assert call(*command)[0] == 2
    assert call(*command, "--allow-unseen-elements")[0] == 0
    assert ase.io.read(tmp_path / "out.xyz").get_potential_energy() == pytest.approx(
        atoms.get_potential_energy(), abs=1e-6
    )  # as many digits are in the file


def test_descriptors_and_hessian_of_the_atoms_last_calculated():
    atoms, calculator = molecule("CH3OH"), SphereNetCalculator(potential())
    with pytest.raises(ValueError, match="atoms: expected a structure, as nothing has been calculated yet, got None"):
        calculator.get_descriptors()
    atoms.calc = calculator
    atoms.get_potential_energy()
    assert calculator.get_descriptors().shape == (6, 8)
    assert np.array_equal(calculator.get_hessian(), calculator.get_hessian(atoms))
