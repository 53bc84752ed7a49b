"""What every model owes to its user: forces, derivatives, special structures, copies, errors."""

import copy
import io
import math
from types import SimpleNamespace

import pytest
import torch
from molecules import MOLECULES, as_data, complete_graph, in_dtype, rattled, rattled_batch
from small_models import IDS, IMPLEMENTATIONS, NAMES, small_model, untrained_model
from torch_geometric.data import Batch, Data

from spherenet_fast.cuda_graph import Capacity, CapturedInference
from spherenet_fast.graph import radius_graph
from spherenet_fast.models import DimeNet, DimeNetPlusPlus, PhysNet, SchNet
from spherenet_fast.nn.framework import GraphNetwork3D


@pytest.fixture(params=IMPLEMENTATIONS, ids=IDS)
def model(request):
    """Small, in float64 and evaluation mode, with kernels and with the readable operators."""
    return small_model(*request.param).eval()


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def water(**changes):
    pos = torch.tensor([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    return as_data(**{**dict(z=torch.tensor([8, 1, 1]), pos=pos, batch=torch.zeros(3).long()), **changes})


def double_water():
    return in_dtype(water(), torch.float64)


# ---- derivatives -----------------------------------------------------------------------------------------------------


def assert_forces_are_differences(model, data):
    """Forces against central differences of 1e-5 Å: error 1e-10 times a third derivative, up to 10^4 forces/Å^2."""
    energy, forces = model.energy_and_forces(data)
    assert not energy.requires_grad and not forces.requires_grad
    assert not data.pos.requires_grad and data.pos.grad is None
    torch.testing.assert_close(energy, model(data).detach())
    tolerance = 1e-6 * forces.abs().max().item()
    for atom in range(len(data.z)):
        for axis in range(3):
            step = torch.zeros_like(data.pos)
            step[atom, axis] = 1e-5
            above, below = (model(as_data(**vars(data) | dict(pos=data.pos + s * step))).sum() for s in (1, -1))
            assert forces[atom, axis].item() == pytest.approx(-(above - below).item() / 2e-5, abs=tolerance)
    assert forces.norm() > 1e-3  # or else nothing is tested
    return energy, forces


def test_forces_are_minus_the_gradient_of_the_energy(model):
    data = rattled_batch((5, 4))
    energy, forces = assert_forces_are_differences(model, data)
    # nothing pulls on a molecule from outside: sums of rounded numbers
    torch.testing.assert_close(forces[:5].sum(0), torch.zeros(3).double(), rtol=0, atol=1e-11)
    # molecules do not see each other
    alone = model(as_data(data.z[:5], data.pos[:5]))
    torch.testing.assert_close(alone, energy[:1], rtol=1e-11, atol=1e-13)


def test_forces_in_a_cell_smaller_than_the_cutoff(model):
    cell = torch.tensor([[3.1, 0.2, 0.0], [0.4, 3.3, -0.2], [0.1, -0.3, 3.6]], dtype=torch.float64)
    data = as_data(torch.tensor([6, 8, 1]), rattled(3, 1), None, cell=cell)
    assert_forces_are_differences(model, data)
    *_, stress = model.energy_forces_stress(data)
    for a, b in ((0, 0), (0, 1), (2, 1)):
        strain = torch.zeros(3, 3, dtype=torch.float64)
        strain[a, b] += 5e-6
        strain[b, a] += 5e-6
        change = [torch.eye(3).double() + sign * strain for sign in (1, -1)]
        above, below = (model(as_data(data.z, data.pos @ c, None, cell=cell @ c)).sum() for c in change)
        expected = (above - below).item() / 2e-5 / torch.linalg.det(cell).item()
        assert stress[0, a, b].item() == pytest.approx(expected, abs=1e-6, rel=1e-6)  # as for the forces


def test_forces_while_derivatives_are_off(model):
    expected = model.energy_and_forces(double_water())
    graph = radius_graph(double_water().pos, None, 5.0)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            for energy, forces in (
                model.energy_and_forces(double_water()),
                model.energy_and_forces(double_water(), graph),
            ):
                assert torch.equal(energy, expected[0]) and torch.equal(forces, expected[1])


def test_training_differentiates_forces(name):
    model = small_model(name)
    data = as_data(torch.tensor([6, 1, 8, 1, 7]), rattled(5, 0))

    def loss():
        energy, forces = model.energy_and_forces(data)
        return energy.square().mean() + 10 * forces.square().mean()

    gradients = torch.autograd.grad(loss(), list(model.parameters()))
    generator = torch.Generator().manual_seed(1)
    for (name, parameter), gradient in zip(model.named_parameters(), gradients, strict=True):
        assert gradient.norm() > 0, name
        step = 1e-5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            parameter += step
            above = loss()
            parameter -= 2 * step
            below = loss()
            parameter += step
        # central differences: error 1e-10 times a third derivative, up to 1e5 times the first, and rounding
        # 1e-16 / 1e-5 of the loss
        expected = pytest.approx((above - below).item() / 2, rel=3e-5, abs=1e-14 * max(1, above.item()))
        assert (gradient * step).sum().item() == expected, name


# ---- special structures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_atoms, batch, num_graphs", [(0, [], 0), (0, [], 2), (1, [0], 1), (2, [0, 2], 4)])
def test_molecules_without_neighbors(model, num_atoms, batch, num_graphs):
    pos, batch = torch.randn(num_atoms, 3).double(), torch.tensor(batch).long()
    data = as_data(torch.full((num_atoms,), 6), pos, batch, num_graphs=num_graphs)
    for training in (True, False):
        energy, forces = model.train(training).energy_and_forces(data)
        assert energy.shape == (num_graphs, 1) and energy.isfinite().all()
        assert forces.shape == (num_atoms, 3) and (forces == 0).all()
    model.train().energy_and_forces(data)[1].square().sum().backward()


def test_an_isolated_last_atom(model):
    data = rattled_batch((4, 5))
    data.pos[-1] += 40
    energy, forces = model.energy_and_forces(data)
    assert (forces[-1] == 0).all() and energy.isfinite().all()
    parts = [model(as_data(data.z[rows], data.pos[rows])) for rows in (slice(4, 8), slice(8, 9))]
    torch.testing.assert_close(energy[1:], sum(parts), rtol=1e-11, atol=1e-13)  # additions in another order


def test_symmetric_molecules_have_numbers_for_forces(model):
    model.train()
    for pos in MOLECULES.values():
        energy, forces = model.energy_and_forces(as_data(torch.full((len(pos),), 6), pos))
        model.zero_grad()
        (energy.sum() + forces.square().sum()).backward()
        assert forces.isfinite().all() and all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.filterwarnings("ignore:max_num_neighbors")
def test_one_way_edges(model):
    """A graph that is not symmetric, as max_num_neighbors makes it: some edges have no opposite one."""
    data = rattled_batch((6, 5))
    graph = radius_graph(data.pos, data.batch, 5.0, max_num_neighbors=2)
    assert (graph.rev < 0).any() and (graph.rev >= 0).any()
    twin = copy.deepcopy(model)
    twin.hparams["kernels"] = False
    expected = twin.energy_and_forces(data, graph)
    for found, value in zip(model.energy_and_forces(data, graph), expected, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-9, atol=1e-11)  # the same sums, in another order


# ---- data ------------------------------------------------------------------------------------------------------------


def test_dict_and_pyg_data_are_read(model):
    data = double_water()
    expected = model(data)
    assert torch.equal(model(vars(data)), expected)
    single = Data(z=data.z, pos=data.pos)
    assert torch.equal(model(single), expected)
    batch = Batch.from_data_list([single, single])
    torch.testing.assert_close(model(batch), expected.repeat(2, 1))  # the same sums in larger matrix products


def test_periodic_cells_are_read(model):
    pos, cell = rattled(3, 0), 4.5 * torch.eye(3, dtype=torch.float64)
    single = dict(z=torch.tensor([6, 8, 7]), pos=pos, cell=cell, pbc=torch.tensor([True, True, False]))
    energy, forces = model.energy_and_forces(single)
    moved = single | dict(pos=pos + torch.tensor([[4.5, 0, 0], [0, -9.0, 0], [0, 0, 0]], dtype=torch.float64))
    # the same cell with atoms in other images: the same distances, up to rounding
    torch.testing.assert_close(model(moved), energy, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(model(single | dict(cell=None, pbc=None)), energy)
    batch = Batch.from_data_list([Data(**single), Data(**moved)])
    both, both_forces = model.energy_and_forces(batch)
    torch.testing.assert_close(both, energy.repeat(2, 1), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(both_forces, forces.repeat(2, 1), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    "changes, error, message",
    [
        (dict(z=torch.ones(3)), TypeError, "data.z: expected int64, got torch.float32"),
        (dict(z=None), TypeError, "data.z: expected a tensor, got NoneType"),
        (dict(z=torch.tensor([8, 0, 1])), ValueError, "data.z: expected atomic numbers 1 to 94, got 0 to 8"),
        (dict(z=torch.tensor([8, 95, 1])), ValueError, "data.z: expected atomic numbers 1 to 94, got 1 to 95"),
        (dict(pos=torch.zeros(3, 3).double()), TypeError, "data.pos: expected torch.float32.* got torch.float64"),
        (dict(pos=torch.zeros(3, 3, device="meta")), ValueError, "data.pos: expected device cpu.* got meta"),
        (dict(pos=torch.zeros(4, 3)), ValueError, r"data.pos: expected shape \[3, 3\].* got \[4, 3\]"),
        (dict(pos=torch.full((3, 3), math.nan)), ValueError, "data.pos: expected finite .* for atom 0"),
        (dict(batch=torch.zeros(3)), TypeError, "data.batch: expected int64, got torch.float32"),
        (dict(batch=torch.zeros(2).long()), ValueError, r"data.batch: expected shape \[3\].* got \[2\]"),
        (dict(batch=torch.tensor([0, 1, 0])), ValueError, "data.batch: .*ascending"),
        (dict(num_graphs=0), ValueError, "data.num_graphs: expected an int from 1 to 16777216, got 0"),
        (dict(num_graphs=1, batch=torch.ones(3).long()), ValueError, "data.batch: expected .* 0 to 0, got 1 to 1"),
        (dict(cell=torch.zeros(2, 2)), ValueError, r"data.cell: expected shape \[3, 3\] or \[B, 3, 3\], got \[2, 2\]"),
    ],
)
def test_wrong_data(name, changes, error, message):
    with pytest.raises(error, match=message):
        small_model(name).float()(water(**changes))


def test_a_graph_of_other_atoms_is_refused(name):
    with pytest.raises(ValueError, match="graph: expected one of 3 atoms, as in data, got 4"):
        small_model(name)(double_water(), complete_graph(4))


# ---- the module ------------------------------------------------------------------------------------------------------


def test_copies(model):
    expected = model(double_water())
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for twin in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert torch.equal(twin(double_water()), expected)
    other = type(model)(**model.hparams)
    other.double().load_state_dict(model.state_dict())
    assert torch.equal(other.eval()(double_water()), expected)
    assert other.hparams == model.hparams


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_kernels_equal_the_readable_operators(name, dtype, tolerance):
    """A training step; the tolerance is that of `test_model.py`, forces in float32 losing a digit to cancellation."""
    found, expected = small_model(name).to(dtype), small_model(name)
    expected.hparams["kernels"] = False
    data = rattled_batch((6, 9, 4))
    results = []
    for each, batch in ((found, in_dtype(data, dtype)), (expected, data)):
        energy, forces = each.energy_and_forces(batch)
        (energy.square().mean() + forces.square().mean()).backward()
        results.append([energy.detach(), forces.detach(), *(parameter.grad for parameter in each.parameters())])
    for value, exact in zip(*results, strict=True):
        assert exact.norm() > 0 and (value.double() - exact).norm() <= tolerance * exact.norm()


def test_autocast_keeps_the_operators_in_float32(model):
    model.float().train()
    expected = model(water())
    with torch.autocast("cpu", torch.bfloat16):
        energy = model(water())
        _, forces = model.energy_and_forces(water())
    assert energy.dtype == torch.float32 and forces.dtype == torch.float32
    # bfloat16 has 8 bits, 4e-3, and there are some ten layers with numbers of order 1
    torch.testing.assert_close(energy, expected, rtol=0.05, atol=0.05)


# of SphereNet, and with it all of DimeNet++: test_compile.py
@pytest.mark.parametrize(
    "name, layers", [("SchNet", "num_interactions"), ("PhysNet", "num_blocks"), ("DimeNet", "num_blocks")]
)
def test_inference_compiles_to_one_graph(name, layers):
    model = small_model(name, **{layers: 1}).eval()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch.no_grad():
        for sizes in ((5, 3), (4, 7)):
            data = rattled_batch(sizes)
            data.num_graphs = 2
            graph = radius_graph(data.pos, data.batch, 5.0)
            torch.testing.assert_close(compiled(data, graph), model(data, graph))  # the same operations, perhaps fused


def test_steps_of_fixed_size(name):
    """As recorded for CUDA graphs: the batch and its neighbors in arrays with room for more."""
    model = small_model(name).eval()
    batches = [rattled_batch(sizes, seed) for seed, sizes in enumerate([(6, 4, 1), (5,)])]
    predict = CapturedInference(model, Capacity.of(batches, 5.0))
    for data in batches:
        for found, expected in zip(predict(data), model.energy_and_forces(data), strict=True):
            # the same sums in matrix products of other sizes
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(
    "model, hparams, error, message",
    [
        (SchNet, dict(num_gaussians=1), ValueError, "num_gaussians: expected 2 to 4096, got 1"),
        (SchNet, dict(num_filters=0), ValueError, "num_filters: expected 1 to 4096, got 0"),
        (SchNet, dict(cutoff=-1.0), ValueError, "cutoff: expected a positive number, got -1.0"),
        (PhysNet, dict(num_residual_atomic=-1), ValueError, "num_residual_atomic: expected 0 to 100, got -1"),
        (DimeNet, dict(num_bilinear=1.5), TypeError, "num_bilinear: expected an int, got 1.5"),
        (DimeNetPlusPlus, dict(num_spherical=9), ValueError, "num_spherical: expected 1 to 8, got 9"),
        (DimeNetPlusPlus, dict(kernels="no"), TypeError, "kernels: expected True or False, got 'no'"),
    ],
)
def test_wrong_hyper_parameters(model, hparams, error, message):
    with pytest.raises(error, match=message):
        model(**hparams)


def test_an_untrained_model_predicts_zero(name):
    """Its errors are those of the mean, whatever the number of atoms, and the last layers learn from the first step."""
    model = untrained_model(name).train()
    energy, forces = model.energy_and_forces(in_dtype(rattled_batch((5, 4)), torch.float32))
    assert (energy == 0).all() and (forces == 0).all()
    (energy - 1).square().sum().backward()
    assert any(parameter.grad is not None and parameter.grad.norm() > 0 for parameter in model.parameters())


@pytest.mark.parametrize(
    "model, count",
    [(SchNet, 455_169), (PhysNet, 1_293_118), (DimeNet, 2_100_070), (DimeNetPlusPlus, 1_885_830)],
)
def test_parameter_counts(model, count):
    """Of the default sizes, as in the README."""
    assert sum(parameter.numel() for parameter in model().parameters()) == count


def test_a_model_must_say_what_it_starts_from():
    class Empty(GraphNetwork3D):
        def __init__(self):
            super().__init__(dict(cutoff=5.0), 1)
            self.weight = torch.nn.Parameter(torch.zeros(1))

    with pytest.raises(NotImplementedError, match="Empty.embed: expected a method that returns the first V and E"):
        Empty()(SimpleNamespace(**vars(water())))
