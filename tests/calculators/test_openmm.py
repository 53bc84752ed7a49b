"""The force of OpenMM: results of the ASE calculator, one evaluation a step, and the way through XML."""

import numpy as np
import pytest
from engines import counted, ethanol, ethanol_crystal, small_potential, with_calculator

openmm = pytest.importorskip("openmm", reason="of the extra `engines`")
from openmm import app, unit  # noqa: E402

from spherenet_fast.calculators.openmm import spherenet_force  # noqa: E402
from spherenet_fast.data import conversion  # noqa: E402

ENERGY = conversion("kJ/mol", "eV")


def system_of(atoms, *forces):
    system = openmm.System()
    for mass in atoms.get_masses():
        system.addParticle(mass)
    if atoms.pbc.any():
        system.setDefaultPeriodicBoxVectors(*(0.1 * atoms.cell.array))
    for force in forces:
        system.addForce(force)
    return system


def context_of(system, atoms):
    """In double precision."""
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.0002), platform)
    context.setPositions(0.1 * atoms.positions)
    return context


def results(context):
    """eV and eV/Å."""
    state = context.getState(energy=True, forces=True)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.angstrom)
    return ENERGY * energy, ENERGY * forces


def topology_of(atoms):
    topology = app.Topology()
    residue = topology.addResidue("UNK", topology.addChain())
    for symbol in atoms.symbols:
        topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
    if atoms.pbc.any():
        topology.setPeriodicBoxVectors(0.1 * atoms.cell.array * unit.nanometer)
    return topology


@pytest.mark.parametrize("make", [ethanol, ethanol_crystal])
def test_results_are_those_of_the_calculator_also_after_xml(make):
    atoms, potential = make(), small_potential()
    expected = with_calculator(atoms, potential)
    system = system_of(atoms, spherenet_force(potential, topology_of(atoms)))
    assert system.usesPeriodicBoundaryConditions() == atoms.pbc.any()
    again = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
    for one in (system, again):
        energy, forces = results(context_of(one, atoms))
        # float64; positions in nm and back, and forces of some eV/Å.
        assert energy == pytest.approx(expected.get_potential_energy(), rel=1e-12)
        assert forces == pytest.approx(expected.get_forces(), abs=1e-9)


def test_a_step_is_one_evaluation_also_with_reports(monkeypatch):
    atoms, potential = ethanol(), small_potential()
    context = context_of(system_of(atoms, spherenet_force(potential, atoms.numbers)), atoms)
    calls, energies = counted(monkeypatch), []
    for _ in range(5):
        context.getIntegrator().step(1)
        state = context.getState(energy=True, forces=True)
        energies.append((state.getPotentialEnergy() + state.getKineticEnergy()).value_in_unit(unit.kilojoule_per_mole))
    assert calls == [1] * 6  # one of them for the start
    assert len(set(energies)) == 5


def test_some_particles_alone():
    atoms, potential = ethanol(), small_potential()
    inside = [3, 0, 1, 2, 4, 5, 6, 7, 8]
    alone = with_calculator(atoms[inside], potential)
    numbers = [*atoms.numbers, 79]  # gold stays outside
    everything = atoms + type(atoms)("Au", positions=[[5, 5, 5]])
    context = context_of(system_of(everything, spherenet_force(potential, numbers, particles=inside)), everything)
    energy, forces = results(context)
    assert energy == pytest.approx(alone.get_potential_energy(), rel=1e-12)
    assert forces[inside] == pytest.approx(alone.get_forces(), abs=1e-9)
    assert np.all(forces[9] == 0)


def test_a_unit_that_only_the_caller_knows_survives_xml():
    atoms, potential = ethanol(), small_potential()
    expected = with_calculator(atoms, potential).get_potential_energy()
    potential.units = (None,)
    system = system_of(atoms, spherenet_force(potential, atoms.numbers, unit="kcal/mol"))
    again = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
    assert results(context_of(again, atoms))[0] == pytest.approx(expected, rel=1e-12)


def test_what_cannot_be_evaluated_is_refused_before_a_step():
    atoms, potential = ethanol(), small_potential()
    with pytest.raises(ValueError, match=r"expected elements of the training set \(H, C, O\), got Au"):
        spherenet_force(potential, [*atoms.numbers, 79])
    for particles in ([], [-1], [9]):  # OpenMM itself would take none for all, and look for -1 before the first
        with pytest.raises(ValueError, match="particles: expected some numbers from 0 to 8, got"):
            spherenet_force(potential, atoms.numbers, particles=particles)
    few = context_of(system_of(atoms, spherenet_force(potential, [6, 1])), atoms)
    with pytest.raises(openmm.OpenMMException, match="atoms: expected as many as the system has particles, 9, got 2"):
        results(few)
    topology = topology_of(atoms)
    topology.addAtom("M", None, next(topology.residues()))
    with pytest.raises(ValueError, match="atoms: expected an element for each atom of the topology, got none for"):
        spherenet_force(potential, topology)


def test_a_route_through_openmmml_has_the_same_results():
    openmmml = pytest.importorskip("openmmml", reason="of the extra `engines`")
    atoms, potential = ethanol(), small_potential()
    expected = with_calculator(atoms, potential)
    system = openmmml.MLPotential("ase").createSystem(topology_of(atoms), calculator=expected.calc)
    energy, forces = results(context_of(system, atoms))
    # openmmml converts by ase.units of CODATA 2014, as the package does.
    assert energy == pytest.approx(expected.get_potential_energy(), rel=1e-12)
    assert forces == pytest.approx(expected.get_forces(), abs=1e-9)
