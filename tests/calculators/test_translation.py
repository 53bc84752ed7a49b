"""Forces and energies in float32 of structures far from the origin, and of atoms outside their cell."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from test_calculator import potential

from spherenet_fast.calculators.ase import SphereNetCalculator
from spherenet_fast.data import from_atoms, read_molecules
from spherenet_fast.data.centering import centered
from spherenet_fast.training.predict import predict

pytestmark = pytest.mark.filterwarnings("ignore:the energy of a model with the paper's torsion")

FAR = [np.array([100.0, -70.0, 30.0]), np.array([1e5, 2e5, -1e5])]


def ethanol():
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=0)
    return atoms


def crystal():
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.set_cell(atoms.cell + [[0, 0.3, 0], [0.1, 0, 0], [0, 0, 0.2]], scale_atoms=True)
    atoms.rattle(0.1, seed=0)
    return atoms


def slab():
    """Open along z, where its cell has no vector."""
    atoms = fcc111("Pd", (2, 2, 2), vacuum=None, periodic=False)
    atoms.rattle(0.1, seed=0)
    return atoms


STRUCTURES = {"molecule": ethanol, "crystal": crystal, "slab": slab}


def outside_their_cell(atoms):
    """Every atom moved by whole cells of its own."""
    steps = np.random.default_rng(0).integers(-3, 4, (len(atoms), 3)) * atoms.pbc
    atoms = atoms.copy()
    atoms.positions += steps @ atoms.cell.array
    return atoms


def results(atoms):
    atoms.calc = SphereNetCalculator(potential(units=("eV",), dtype=torch.float32))
    return atoms.get_potential_energy(), atoms.get_forces()


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("far", FAR, ids=["100 Å", "1e5 Å"])
@pytest.mark.parametrize("wrapped", [True, False], ids=["in the cell", "outside the cell"])
def test_forces_do_not_depend_on_where_a_structure_is(name, far, wrapped):
    atoms = STRUCTURES[name]()
    energy, forces = results(atoms)
    other = atoms.copy() if wrapped else outside_their_cell(atoms)
    other.positions += far
    found, found_forces = results(other)
    largest = np.abs(forces).max()
    assert largest > 0.1  # eV/Å, or else nothing is tested
    assert np.abs(found_forces - forces).max() <= 1e-6 * largest
    assert abs(found - energy) <= 1e-6 * abs(energy)
    if atoms.cell.rank == 3:
        assert np.abs(other.get_stress() - atoms.get_stress()).max() <= 1e-6 * np.abs(atoms.get_stress()).max()
    assert np.array_equal(other.positions, (atoms if wrapped else outside_their_cell(atoms)).positions + far)


def test_predictions_do_not_depend_on_where_a_structure_is():
    atoms = [make() for make in STRUCTURES.values()]
    moved = [structure.copy() for structure in atoms]
    for structure in moved:
        structure.positions += FAR[1]
    model = potential(units=("eV",), dtype=torch.float32).eval()
    for mine, other, given in zip(predict(model, moved), predict(model, atoms), moved, strict=True):
        largest = np.abs(other.get_forces()).max()
        assert np.abs(mine.get_forces() - other.get_forces()).max() <= 1e-6 * largest
        assert np.array_equal(mine.positions, given.positions)  # what is written is what was read


def test_readers_keep_the_shape_of_structures_far_away(tmp_path):
    """float32 resolves 8e-3 Å at 1e5 Å; what a reader gives has the distances of the file to 1e-6 Å."""
    atoms = ethanol()
    far = atoms.positions + FAR[1]
    file = tmp_path / "frames.npz"
    np.savez(file, z=atoms.numbers, pos=far[None], energy=np.zeros(1))
    packed = tmp_path / "packed.npz"
    np.savez(packed, n_atoms=np.array([9]), z=atoms.numbers, pos=far, energy=np.zeros(1))
    moved = atoms.copy()
    moved.positions = far
    moved.write(tmp_path / "frames.xyz")  # 8 decimals
    for path in (file, packed, tmp_path / "frames.xyz"):
        pos = read_molecules(str(path)).pos
        assert pos.dtype == torch.float32
        np.testing.assert_allclose(torch.cdist(pos, pos).numpy(), atoms.get_all_distances(), rtol=0, atol=2e-6)
    # nothing is rounded in float64, so nothing is moved
    assert np.array_equal(read_molecules(str(packed), dtype=torch.float64).pos.numpy(), far)


def test_several_structures_are_moved_each_by_itself():
    structures = [ethanol(), crystal(), slab(), Atoms("H", [[5e4, 0, 0]])]
    together = from_atoms(structures)
    for number, structure in enumerate(structures):
        alone = from_atoms([structure]).pos
        torch.testing.assert_close(together[number].pos, alone, rtol=0, atol=1e-6)
        assert together[number].pos.abs().max() <= np.linalg.norm(np.ptp(structure.positions, axis=0)) + 1e-3


@pytest.mark.parametrize("cell", [np.zeros((3, 3)), np.ones((3, 3)), np.full((3, 3), np.nan)])
def test_cells_without_a_volume_are_left_to_the_checks(cell):
    pos = np.array([[1e5, 0, 0], [1e5, 1.5, 0]])
    found = centered(pos, torch.tensor([2]), cell[None], None, torch.float32)
    assert found.tolist() == [[0, -0.75, 0], [0, 0.75, 0]]


@pytest.mark.parametrize("cell, pbc", [(np.ones((1, 3)), None), (np.ones((2, 3, 3)), None), (None, np.ones((4, 3)))])
def test_arrays_of_wrong_shapes_are_left_to_the_checks(cell, pbc):
    pos = np.array([[1.0, 0, 0], [1, 1.5, 0]])
    assert centered(pos, torch.tensor([2]), cell, pbc, torch.float32).tolist() == pos.tolist()


def test_atoms_half_a_cell_away_stay_together():
    """Rounding would send some to one side and some to the other."""
    halves = np.array([[0.0, 0, 0], [0.5, 0, 0], [0.5, 0.5, 0], [0, 0.5, 0.5]])
    cell = np.diag([3.3, 4.7, 5.1])
    for shift in np.random.default_rng(0).uniform(-1e4, 1e4, (50, 3)):
        found = centered(halves @ cell + shift, torch.tensor([4]), cell[None], None, torch.float32)
        torch.testing.assert_close(found.double(), torch.from_numpy(-halves @ cell), rtol=0, atol=1e-6)
