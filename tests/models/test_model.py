"""SphereNet with fused kernels against SphereNet with readable operators, and what physics asks of it."""

import pytest
import torch
from molecules import EXACT, SMALL, as_data, in_dtype, rattled, rattled_batch, with_outputs

from spherenet_fast.graph import radius, radius_graph
from spherenet_fast.models import SphereNet


def with_isolated_atoms():
    """The first molecule is one atom, and the last atom of the last one sees nobody."""
    data = rattled_batch((1, 6, 5))
    data.pos[-1] += 30
    return data


def periodic():
    """Three atoms in a cell smaller than the cutoff."""
    cell = torch.tensor([[3.1, 0.2, 0.0], [0.4, 3.3, -0.2], [0.1, -0.3, 3.6]], dtype=torch.float64)
    return as_data(torch.tensor([6, 8, 1]), rattled(3, 1), cell=cell)


DATA = {
    "batch": rattled_batch((6, 9, 4)),
    "isolated atoms": with_isolated_atoms(),
    "periodic": periodic(),
    "benzene": as_data(*EXACT["benzene"]),
    "linear": as_data(*EXACT["acetylene"]),
}
VARIANTS = {
    "dig": dict(basis="dig"),
    "without torsion": dict(use_torsion=False),
    "without angle": dict(use_torsion=False, use_angle=False),
    "truncated": dict(max_num_neighbors=3),
    "one": dict(num_spherical=1, num_radial=1, int_emb_size=1, basis_emb_size_angle=1, basis_emb_size_torsion=1),
    "odd": dict(num_spherical=8, num_radial=16, int_emb_size=70, basis_emb_size_angle=17, basis_emb_size_torsion=9),
    "several outputs": dict(out_channels=3, cutoff=3.0),
}
# float64: some ten layers, each a sum of some hundred numbers off by 1e-16, and two derivatives, in another order of
# additions. float32: the same with 6e-8, and gradients are sums over all edges that cancel: one digit is lost to that.
TOLERANCES = {torch.float64: 1e-11, torch.float32: 1e-4}


def training_step(model, data):
    """Energy, forces and all gradients of a loss on both, by name."""
    model.train().zero_grad()
    energy, forces = model.energy_and_forces(data)
    (energy.square().mean() + forces.square().mean()).backward()
    found = {"energy": energy.detach(), "forces": forces.detach()}
    return found | {name: parameter.grad for name, parameter in model.named_parameters()}


def assert_same_step(data, dtype, **hparams):
    """One training step with kernels in dtype against one with the readable operators in float64."""
    model = with_outputs(SphereNet(**hparams))
    twin = SphereNet(**{**model.hparams, "kernels": False})
    twin.load_state_dict(model.state_dict())
    data = in_dtype(data, dtype)
    found = training_step(model.to(dtype), data)
    expected = training_step(twin.double(), in_dtype(data, torch.float64))
    assert found["energy"].norm() > 0 and found["forces"].norm() > 0  # or else nothing is compared
    for name, tensor in found.items():
        assert tensor.isfinite().all()
        assert (tensor.double() - expected[name]).norm() <= TOLERANCES[dtype] * expected[name].norm(), name


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", DATA)
def test_kernels_equal_the_readable_operators(name, dtype):
    assert_same_step(DATA[name], dtype, **SMALL)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_kernels_equal_the_readable_operators_in_variants(variant, dtype, monkeypatch):
    monkeypatch.setattr(radius, "_truncation_reported", True)
    assert_same_step(DATA["batch"], dtype, **{**SMALL, **VARIANTS[variant]})


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_kernels_equal_the_readable_operators_in_the_default_model(dtype):
    assert_same_step(DATA["batch"], dtype)


@pytest.fixture
def model():
    return with_outputs(SphereNet(**SMALL)).double().eval()


def test_molecules_of_a_batch_are_as_alone(model):
    data = rattled_batch((6, 1, 9, 4))
    energy, forces = model.energy_and_forces(data)
    for number in range(4):
        mine = data.batch == number
        alone, alone_forces = model.energy_and_forces(as_data(data.z[mine], data.pos[mine]))
        # the same sums in matrix products of another size
        torch.testing.assert_close(alone[0], energy[number], rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(alone_forces, forces[mine], rtol=1e-11, atol=1e-12)


def test_energies_of_separated_molecules_add_up(model):
    data = rattled_batch((6, 9))
    data.pos[data.batch == 1] += 100
    together = model(as_data(data.z, data.pos))
    torch.testing.assert_close(together[0], model(data).sum(0), rtol=1e-12, atol=1e-13)  # additions in another order


def test_no_force_between_molecules_nor_beyond_the_cutoff(model):
    data = rattled_batch((6, 9))
    data.pos[0] += 40
    data.pos.requires_grad_()
    (first,) = torch.autograd.grad(model(data)[0].sum(), data.pos)
    assert (first[6:] == 0).all() and (first[1:6] != 0).all()
    assert (first[0] == 0).all()


@pytest.mark.parametrize("kernels", [True, False])
def test_no_net_force_and_no_net_torque(kernels):
    model = with_outputs(SphereNet(**SMALL, kernels=kernels)).double().eval()
    data = DATA["batch"]
    _, forces = model.energy_and_forces(data)
    torques = torch.linalg.cross(data.pos, forces, dim=1)
    for number in range(3):
        mine = data.batch == number
        # sums of numbers of order 100 rounded to 1e-14
        assert forces[mine].sum(0).norm() < 1e-11 * forces[mine].norm()
        assert torques[mine].sum(0).norm() < 1e-11 * torques[mine].norm()


def test_a_given_graph_and_no_derivatives_change_nothing(model):
    data = DATA["batch"]
    expected = model(data)
    graph = radius_graph(data.pos, data.batch, 5.0)
    assert torch.equal(model(data, graph), expected)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            assert torch.equal(model(data), expected) and torch.equal(model(data, graph), expected)


def test_positions_may_be_made_of_something_else(model):
    """Derivatives by a strain, from which the positions come, and by the positions on the way there."""
    data = DATA["batch"]
    _, expected = model.energy_and_forces(data)
    strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    strained = as_data(data.z, data.pos + data.pos @ strain, data.batch)
    _, forces = model.energy_and_forces(strained)
    assert torch.equal(forces, expected)
    slope, by_strain = torch.autograd.grad(model(strained).sum(), [strained.pos, strain])
    torch.testing.assert_close(slope, -expected, rtol=1e-12, atol=1e-12)  # the same terms, added in another order
    torch.testing.assert_close(by_strain, data.pos.T @ slope, rtol=1e-12, atol=1e-12)


def test_every_parameter_matters():
    """A gradient that is zero by mistake would pass unseen where two zeros are compared."""
    found = training_step(with_outputs(SphereNet(**SMALL)).double(), DATA["batch"])
    assert all(tensor.norm() > 0 for tensor in found.values())
