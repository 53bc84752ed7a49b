"""Committees: means and variances over several potentials."""

import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.optimize import FIRE
from test_calculator import potential, water_in_a_cell

from spherenet_fast.calculators import Committee
from spherenet_fast.calculators.ase import SphereNetCalculator
from spherenet_fast.models import SphereNet


def test_copies_agree(tmp_path):
    potential().save(tmp_path / "p.ckpt")
    atoms, alone = water_in_a_cell(), water_in_a_cell()
    atoms.calc, alone.calc = Committee([tmp_path / "p.ckpt"] * 3), SphereNetCalculator(tmp_path / "p.ckpt")
    assert atoms.get_potential_energy(force_consistent=True) == alone.get_potential_energy()
    for name in ("energy", "forces", "stress", "energies"):
        assert np.array_equal(atoms.calc.get_property(name, atoms), alone.calc.get_property(name, alone))
        assert not np.any(atoms.calc.get_property(f"{name}_var", atoms))


def test_mean_and_variance_are_those_of_the_members():
    members = [potential(seed=seed) for seed in range(3)]
    atoms = molecule("CH3OH")
    atoms.calc = Committee(members)
    energies, forces = [], []
    for member in members:
        alone = atoms.copy()
        alone.calc = SphereNetCalculator(member)
        energies.append(alone.get_potential_energy())
        forces.append(alone.get_forces())
    # float64 differences of energies of a few eV
    assert atoms.get_potential_energy() == pytest.approx(np.mean(energies), abs=1e-12)
    assert atoms.calc.get_property("energy_var", atoms) == pytest.approx(np.var(energies), rel=1e-9)
    assert atoms.get_forces() == pytest.approx(np.mean(forces, 0), abs=1e-12)
    assert atoms.calc.results["forces_var"] == pytest.approx(np.var(forces, 0), rel=1e-9, abs=1e-15)
    assert (atoms.calc.results["forces_var"] > 0).any()
    energy = atoms.get_potential_energy()
    FIRE(atoms, logfile=None).run(steps=3)
    assert atoms.get_potential_energy() < energy


def test_a_committee_evaluates_many_structures():
    committee = Committee([potential(seed=seed) for seed in range(2)])
    given = [molecule("H2O"), molecule("CH4")]
    properties = (name for name in ("energy", "forces"))  # which all members want to go through
    for before, after in zip(given, committee.evaluate(iter(given), properties), strict=True):
        before.calc = committee
        assert after.get_potential_energy() == pytest.approx(before.get_potential_energy(), abs=1e-10)
        assert after.get_forces() == pytest.approx(before.get_forces(), abs=1e-10)
        assert after.info["energy_var"] == pytest.approx(committee.get_property("energy_var", before), rel=1e-9)
        assert after.arrays["forces_var"].shape == (len(after), 3)


class NoSum(SphereNet):
    def phi_u(self, e_u, v_u, p_u):
        return v_u.tanh()


def test_nothing_is_left_of_another_structure():
    committee = Committee([potential(seed=seed) for seed in range(2)])
    crystal, free = water_in_a_cell(), molecule("H2O")
    crystal.calc = free.calc = committee
    crystal.get_stress()
    free.get_potential_energy()
    assert {"stress", "stress_var"}.isdisjoint(committee.results)
    with pytest.raises(PropertyNotImplementedError, match="stress: expected atoms that repeat"):
        free.get_stress()


def test_members_of_several_kinds():
    """Calculators of one's own are members, too; what one of them lacks the committee does."""
    atoms = molecule("CO")
    atoms.calc = Committee([NoSum(num_layers=1, hidden_channels=8), SphereNetCalculator(potential()), EMT()])
    assert "forces_var" in atoms.calc.implemented_properties
    assert "stress" in atoms.calc.implemented_properties and "energies_var" not in atoms.calc.implemented_properties
    atoms.get_forces()
    assert atoms.calc.results["energy_var"] > 0
    with pytest.raises(ValueError, match="potentials: expected at least one, got none"):
        Committee([])
