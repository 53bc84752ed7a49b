"""Exact second derivatives by the positions, of molecules and cells."""

import pytest
import torch
from molecules import as_data, rattled, rattled_batch
from small_models import NAMES, small_model
from torch.testing import assert_close

STEP = 1e-4


def structure(atoms=5, cell=None):
    data = rattled_batch((atoms,))
    more = {} if cell is None else dict(cell=cell * torch.eye(3).double(), pbc=torch.tensor([True, True, False]))
    return as_data(data.z, data.pos, **more)


def from_differences(model, data):
    """[N, 3, N, 3], from central differences of the forces."""
    rows = []
    for coordinate in range(3 * len(data.z)):
        forces = []
        for sign in (1, -1):
            pos = data.pos.clone()
            pos.view(-1)[coordinate] += sign * STEP
            forces.append(model.energy_and_forces(as_data(**{**vars(data), "pos": pos}))[1])
        rows.append((forces[1] - forces[0]) / (2 * STEP))
    return torch.stack(rows).reshape(len(data.z), 3, len(data.z), 3)


# an edge along a lattice vector has images at exactly one torsion, where the paper's rule jumps: a cell without any
CELLS = [("SphereNet", 3.1), ("SphereNet with the paper's torsion", 6.0), ("SchNet", 3.1)]


@pytest.mark.parametrize(("name", "cell"), [*((name, None) for name in NAMES), *CELLS])
def test_the_hessian_is_the_derivative_of_the_forces(name, cell):
    model, data = small_model(name).eval(), structure(4, cell)
    found = model.hessian(data)
    expected = from_differences(model, data)
    scale = expected.abs().max()
    assert scale > 1e-4 and found.shape == (4, 3, 4, 3) and not found.requires_grad
    # central differences: step^2 / 6 = 2e-9 times a third derivative of the forces, large for close atoms
    assert_close(found / scale, expected / scale, rtol=0, atol=1e-5)
    assert_close(found / scale, found.permute(2, 3, 0, 1) / scale, rtol=0, atol=1e-12)  # rounding
    assert_close(found.sum(2) / scale, torch.zeros_like(found.sum(2)), rtol=0, atol=1e-12)  # as a whole it moves freely


def test_rows_come_in_batches_of_any_size():
    model, data = small_model("SphereNet").eval(), structure()
    expected = model.hessian(data)
    for batch_size in (1, 4, 100):
        assert_close(model.hessian(data, batch_size=batch_size), expected, rtol=1e-10, atol=1e-12)
    with torch.inference_mode():
        assert torch.equal(model.train().hessian(data), expected)
    chosen = torch.tensor([3, 0])
    assert_close(model.hessian(data, chosen), expected[chosen][:, :, chosen], rtol=1e-10, atol=1e-12)


def test_an_atom_on_its_own_feels_nothing():
    model = small_model("SphereNet").eval()
    assert not model.hessian(structure(1)).any()
    far = as_data(torch.tensor([6, 1]), torch.tensor([[0.0, 0, 0], [50, 0, 0]], dtype=torch.float64))
    assert not model.hessian(far).any()


def test_what_has_no_hessian():
    model = small_model("SphereNet")
    with pytest.raises(ValueError, match="data: expected one structure, for a Hessian, got 2"):
        model.hessian(rattled_batch((3, 4)))
    with pytest.raises(ValueError, match=r"atoms: expected numbers \[M\] int64 from 0 to 4, got \[5\]"):
        model.hessian(structure(), torch.tensor([5]))
    with pytest.raises(ValueError, match="batch_size: expected at least 1, got 0"):
        model.hessian(structure(), batch_size=0)
    with pytest.raises(TypeError, match="data.pos: expected torch.float64"):
        model.hessian({"z": torch.tensor([1, 1, 8]), "pos": rattled(3, 0).float()})
