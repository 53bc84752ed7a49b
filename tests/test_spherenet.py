"""SphereNet as a module: its size, its checks, its forces, its special cases."""

import copy
import io
import math
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch._dynamo.testing
from molecules import MOLECULES, complete_graph, rattled
from torch.fx.experimental.proxy_tensor import make_fx
from torch_geometric.data import Batch, Data

from spherenet_fast import basis
from spherenet_fast.graph import radius_graph
from spherenet_fast.models import SphereNet

TINY = dict(
    num_layers=1, hidden_channels=6, int_emb_size=4, basis_emb_size_dist=2, basis_emb_size_angle=3,
    basis_emb_size_torsion=3, out_emb_channels=5, num_spherical=3, num_radial=2, num_output_layers=1,
)  # fmt: skip


@pytest.fixture(params=[False, True], ids=["reference", "kernels"])
def tiny(request):
    """Hyper-parameters of a small model, for both implementations of the operators."""
    return dict(TINY, kernels=request.param)


def test_parameter_counts():
    model = SphereNet()
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_898_566  # Table 5 of the paper
    assert sum(parameter.numel() for parameter in SphereNet(num_spherical=3).parameters()) == 1_890_118
    without_torsion = SphereNet(use_torsion=False)
    assert not [name for name in without_torsion.state_dict() if "lin_t" in name]
    without_angle = SphereNet(use_torsion=False, use_angle=False)
    assert not [name for name in without_angle.state_dict() if "lin_t" in name or "lin_sbf" in name]
    assert SphereNet(**model.hparams).hparams == model.hparams


def test_the_model_is_built_quickly():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so that the processor time does not depend on what else the machine does
    start = time.process_time()
    SphereNet()
    seconds = time.process_time() - start
    torch.set_num_threads(threads)
    assert seconds < 0.3  # 0.06 is usual


def test_initial_weights():
    torch.manual_seed(0)
    for name, value in SphereNet().state_dict().items():
        if name.endswith("bias"):
            assert (value == 0).all()
        elif name.endswith("freq"):
            torch.testing.assert_close(value, math.pi * torch.arange(1.0, 7.0))
        elif name.endswith("emb.weight"):
            assert value.abs().max() < 3**0.5 and abs(value.std().item() - 1) < 0.05
        else:  # orthogonal: the mean square is exact up to rounding
            assert value.square().mean().item() == pytest.approx(2 / sum(value.shape), rel=1e-4)


@pytest.mark.parametrize(
    "hparams, error, message",
    [
        (dict(cutoff=0.0), ValueError, "cutoff: expected a positive number, got 0.0"),
        (dict(cutoff=math.nan), ValueError, "cutoff: expected a positive number, got nan"),
        (dict(cutoff="5"), TypeError, "cutoff: expected a number, got '5'"),
        (dict(num_layers=0), ValueError, "num_layers: expected at least 1, got 0"),
        (dict(num_spherical=9), ValueError, "num_spherical: expected at least 1, at most 8, got 9"),
        (dict(num_radial=17), ValueError, "num_radial: expected at least 1, at most 16, got 17"),
        (dict(hidden_channels=3.5), TypeError, "hidden_channels: expected an int, got 3.5"),
        (dict(basis="dig"), ValueError, 'basis: expected "paper" or "released", got \'dig\''),
        (dict(use_angle=False), ValueError, "use_torsion: expected False where use_angle is False"),
        (dict(use_torsion=1), TypeError, "use_torsion: expected True or False, got 1"),
        (dict(max_num_neighbors=0), ValueError, "max_num_neighbors: expected at least 1, got 0"),
    ],
)
def test_wrong_hyper_parameters(hparams, error, message):
    with pytest.raises(error, match=message):
        SphereNet(**hparams)


def water(**changes):
    pos = torch.tensor([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    return SimpleNamespace(**{**dict(z=torch.tensor([8, 1, 1]), pos=pos, batch=torch.zeros(3).long()), **changes})


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
        (dict(batch=torch.zeros(3)), TypeError, "data.batch: expected an int64 tensor, got torch.float32"),
        (dict(batch=torch.zeros(2).long()), ValueError, r"data.batch: expected shape \[3\].* got \[2\]"),
        (dict(batch=torch.tensor([0, 1, 0])), ValueError, "data.batch: .*ascending"),
        (dict(num_graphs=0), ValueError, "data.num_graphs: expected an int of at least 1, got 0"),
        (dict(num_graphs=1, batch=torch.ones(3).long()), ValueError, "data.batch: expected .* 0 to 0, got 1 to 1"),
        (dict(cell=torch.zeros(2, 2)), ValueError, r"data.cell: expected shape \[3, 3\] or \[B, 3, 3\], got \[2, 2\]"),
    ],
)
def test_wrong_data(changes, error, message):
    with pytest.raises(error, match=message):
        SphereNet(**TINY)(water(**changes))


def test_forces_are_minus_the_gradient_of_the_energy(tiny):
    torch.manual_seed(0)
    model = SphereNet(**tiny).double().eval()
    pos, batch = torch.cat([rattled(5, 0), rattled(4, 1)]), torch.tensor([0] * 5 + [1] * 4)
    data = SimpleNamespace(z=torch.tensor([6, 1, 8, 1, 7, 6, 1, 1, 8]), pos=pos, batch=batch)
    energy, forces = model.energy_and_forces(data)
    assert not energy.requires_grad and not forces.requires_grad and not pos.requires_grad and pos.grad is None
    torch.testing.assert_close(energy, model(data).detach())
    for atom in range(9):
        for axis in range(3):
            step = torch.zeros_like(pos)
            step[atom, axis] = 1e-5
            moved = [model(SimpleNamespace(z=data.z, pos=pos + sign * step, batch=batch)).sum() for sign in (1, -1)]
            # central differences of 1e-5: error 1e-10 times a third derivative
            assert forces[atom, axis].item() == pytest.approx(-(moved[0] - moved[1]).item() / 2e-5, abs=1e-6, rel=1e-6)
    # molecules do not see each other, and nothing pulls on a molecule from outside: sums of rounded numbers
    torch.testing.assert_close(forces[:5].sum(0), torch.zeros(3).double(), rtol=0, atol=1e-12)
    alone = model(SimpleNamespace(z=data.z[:5], pos=pos[:5], batch=None))
    torch.testing.assert_close(alone, energy[:1], rtol=1e-12, atol=1e-14)


def test_forces_while_derivatives_are_off(tiny):
    torch.manual_seed(0)
    model = SphereNet(**tiny).eval()
    expected = model.energy_and_forces(water())
    graph = radius_graph(water().pos, water().batch, 5.0)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            for energy, forces in (model.energy_and_forces(water()), model.energy_and_forces(water(), graph)):
                assert torch.equal(energy, expected[0]) and torch.equal(forces, expected[1])


def test_training_differentiates_forces(tiny):
    torch.manual_seed(0)
    model = SphereNet(**tiny).double().train()
    data = SimpleNamespace(z=torch.tensor([6, 1, 8, 1, 7]), pos=rattled(5, 0), batch=None)

    def loss():
        energy, forces = model.energy_and_forces(data)
        return energy.square().mean() + 10 * forces.square().mean()

    gradients = torch.autograd.grad(loss(), list(model.parameters()))
    generator = torch.Generator().manual_seed(1)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        step = 1e-5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            parameter += step
            above = loss()
            parameter -= 2 * step
            below = loss()
            parameter += step
        # central differences: error 1e-10 times a third derivative, and rounding 1e-16 / 1e-5
        assert (gradient * step).sum().item() == pytest.approx((above - below).item() / 2, rel=1e-5, abs=1e-12)


@pytest.mark.parametrize("num_atoms, batch, num_graphs", [(0, [], 0), (0, [], 2), (1, [0], 1), (2, [0, 2], 4)])
def test_molecules_without_neighbours(tiny, num_atoms, batch, num_graphs):
    model = SphereNet(**tiny)
    data = SimpleNamespace(
        z=torch.full((num_atoms,), 6), pos=torch.randn(num_atoms, 3), batch=torch.tensor(batch).long(),
        num_graphs=num_graphs,
    )  # fmt: skip
    for training in (True, False):
        energy, forces = model.train(training).energy_and_forces(data)
        assert energy.shape == (num_graphs, 1) and energy.isfinite().all()
        assert forces.shape == (num_atoms, 3) and (forces == 0).all()
    model.train().energy_and_forces(data)[1].square().sum().backward()


def test_symmetric_molecules_have_numbers_for_forces(tiny):
    torch.manual_seed(0)
    for pos in MOLECULES.values():
        model = SphereNet(**tiny).double().train()
        energy, forces = model.energy_and_forces(SimpleNamespace(z=torch.full((len(pos),), 6), pos=pos, batch=None))
        (energy.sum() + forces.square().sum()).backward()
        assert forces.isfinite().all() and all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_ablations_run(tiny):
    data = water()
    values = [
        SphereNet(**tiny, use_torsion=torsion, use_angle=angle).energy_and_forces(data)[1].isfinite().all()
        for torsion, angle in ((True, True), (False, True), (False, False))
    ]
    assert all(values)


def test_dict_and_pyg_data_are_read(tiny):
    torch.manual_seed(0)
    model = SphereNet(**tiny).eval()
    expected = model(water())
    assert torch.equal(model(vars(water())), expected)
    single = Data(z=water().z, pos=water().pos)
    assert torch.equal(model(single), expected)
    batch = Batch.from_data_list([single, single])
    # the same sums in larger matrix products
    torch.testing.assert_close(model(batch), expected.repeat(2, 1))


def test_periodic_cells_are_read(tiny):
    torch.manual_seed(0)
    model = SphereNet(**tiny).double().eval()
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
    torch.testing.assert_close(both_forces, forces.repeat(2, 1), rtol=1e-9, atol=1e-11)


def test_a_graph_of_other_atoms_is_refused():
    with pytest.raises(ValueError, match="graph: expected one of 3 atoms, as in data, got 4"):
        SphereNet(**TINY)(water(), complete_graph(4))


def test_copies_and_precision(tiny):
    torch.manual_seed(0)
    model = SphereNet(**tiny, cutoff=4.0).eval()
    expected = model(water())
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for twin in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert torch.equal(twin(water()), expected)
    state = model.state_dict()
    other = SphereNet(**model.hparams)
    other.load_state_dict(state)
    assert torch.equal(other.eval()(water()), expected)
    # the constants are not in the state, and no conversion rounds them
    assert not [name for name in state if "roots" in name or "scale" in name]
    roots = torch.from_numpy(np.array(basis.spherical_bessel_roots(3, 2)))
    for converted in (model, model.double(), model.float()):
        assert torch.equal(converted.emb.roots, roots)


def test_autocast_keeps_the_operators_in_float32(tiny):
    torch.manual_seed(1)
    model = SphereNet(**tiny).train()
    expected = model(water())
    with torch.autocast("cpu", torch.bfloat16):
        energy = model(water())
        _, forces = model.energy_and_forces(water())
    assert energy.dtype == torch.float32 and forces.dtype == torch.float32
    # bfloat16 has 8 bits, 4e-3, and there are some ten layers with numbers of order 1
    torch.testing.assert_close(energy, expected, rtol=0.05, atol=0.05)


def compiled_inputs(num_atoms):
    pos = rattled(num_atoms, num_atoms)
    batch = torch.zeros(num_atoms, dtype=torch.int64)
    data = SimpleNamespace(z=torch.full((num_atoms,), 6), pos=pos, batch=batch, num_graphs=1)
    return data, radius_graph(pos, batch, 5.0)


def test_inference_compiles_to_one_graph():
    torch.manual_seed(0)
    model = SphereNet(**TINY).double().eval()
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=counter)
    with torch.no_grad():
        compiled(*compiled_inputs(5))
        first = counter.frame_count
        for num_atoms in (5, 7, 6):
            data, graph = compiled_inputs(num_atoms)
            torch.testing.assert_close(compiled(data, graph), model(data, graph))
    assert counter.frame_count == first  # other sizes do not compile again


def test_training_step_is_traced():
    """make_fx takes the forces apart, so that what trains on forces can be compiled: the trace differentiates again."""
    torch.manual_seed(0)
    model = SphereNet(**TINY).double().train()
    data, graph = compiled_inputs(5)

    def step(pos):
        return model.energy_and_forces(SimpleNamespace(**vars(data) | dict(pos=pos)), graph)

    def gradients(step):
        energy, forces = step(data.pos)
        return torch.autograd.grad(energy.sum() + forces.square().sum(), list(model.parameters()))

    for traced, expected in zip(gradients(make_fx(step)(data.pos)), gradients(step), strict=True):
        torch.testing.assert_close(traced, expected, rtol=1e-12, atol=1e-12)  # the same operations
