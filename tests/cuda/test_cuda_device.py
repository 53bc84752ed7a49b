"""The numbers of a GPU against the reference on the CPU: operators, models, neighbors. Everything is marked cuda."""

import copy

import pytest
import torch
from gated_sum_cases import GATES, TOLERANCES
from gpu import DEVICE
from molecules import SMALL, labeled_batch, moved, with_outputs
from operator_cases import (
    CASES,
    DIFFERENTIABLE,
    MODEL_SIZES,
    assert_close,
    case,
    cast,
    derivatives,
    gated_function,
    gated_inputs,
)
from operator_graphs import GRAPHS, crowd, on_device, small_graph

from spherenet_fast import ops
from spherenet_fast.graph import radius_graph
from spherenet_fast.models import SphereNet
from spherenet_fast.ops import reference, triton_kernels
from spherenet_fast.ops._register import CPU_ONLY

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("full_precision")]

ALL_GRAPHS = {**GRAPHS, "crowd": crowd()}
TF32 = 5e-3  # it rounds to 5e-4
SHAPES = [
    dict(num_spherical=7, num_radial=6, channels=64, angle_size=8, torsion_size=8),
    dict(num_spherical=3, num_radial=6, channels=64, angle_size=8, torsion_size=8),
    dict(num_spherical=2, num_radial=4, channels=20, angle_size=3, torsion_size=9),
    dict(num_spherical=8, num_radial=16, channels=70, angle_size=17, torsion_size=17),
    dict(num_spherical=1, num_radial=1, channels=1, angle_size=1, torsion_size=1),
]


def gated_on(device, vec, graph, inputs, dtype, basis="paper"):
    given = cast(inputs, dtype, device)
    return derivatives(gated_function(ops, vec.to(device), on_device(graph, device), basis), given)


# ---- the operators against the reference -----------------------------------------------------------------------------


def test_the_kernels_are_there():
    registered = [name for name in torch._C._dispatch_get_all_op_names() if name.startswith("spherenet_fast::")]
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    missing = {name.split("::")[1] for name in registered if not has_kernel(name, DEVICE.upper())}
    of_triton = set(triton_kernels.NAMES) if triton_kernels.AVAILABLE else set()
    assert registered and missing == (CPU_ONLY - of_triton if DEVICE == "cuda" else set())


@pytest.mark.parametrize("dtype, tolerance", TOLERANCES)
@pytest.mark.parametrize("shape", SHAPES[:3:2], ids=["default", "odd"])
@pytest.mark.parametrize("name", ALL_GRAPHS)
def test_gated_sum_of_every_graph(name, shape, dtype, tolerance):
    vec, graph = ALL_GRAPHS[name]
    inputs = cast(gated_inputs(vec, **shape), dtype)
    expected = derivatives(gated_function(reference, vec, graph), cast(inputs, torch.float64))
    assert_close(gated_on(DEVICE, vec, graph, inputs, dtype), expected, tolerance)


@pytest.mark.parametrize("dtype, tolerance", TOLERANCES)
@pytest.mark.parametrize("basis", ["paper", "dig"])
@pytest.mark.parametrize("gates", GATES, ids=["torsion", "angle", "plain"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape.values())))
def test_gated_sum_of_every_size(shape, gates, basis, dtype, tolerance):
    vec, graph = GRAPHS["batch"]
    inputs = cast(gated_inputs(vec, **shape, **gates), dtype)
    expected = derivatives(gated_function(reference, vec, graph, basis), cast(inputs, torch.float64))
    assert_close(gated_on(DEVICE, vec, graph, inputs, dtype, basis), expected, tolerance)


@pytest.mark.parametrize("shape", SHAPES[:3], ids=lambda shape: "-".join(map(str, shape.values())))
def test_gated_sum_with_tf32_where_torch_may_use_it(shape):
    vec, graph = crowd()
    inputs = cast(gated_inputs(vec, **shape), torch.float32)
    expected = derivatives(gated_function(reference, vec, graph), cast(inputs, torch.float64))
    exact = gated_on(DEVICE, vec, graph, inputs, torch.float32)
    torch.set_float32_matmul_precision("high")
    rounded = gated_on(DEVICE, vec, graph, inputs, torch.float32)
    assert_close(rounded, expected, TF32)
    assert_close(exact, expected, 1e-5)
    doubled = [gated_on(DEVICE, vec, graph, inputs, torch.float64) for _ in range(2)]
    torch.set_float32_matmul_precision("highest")
    assert_close(doubled[0], gated_on(DEVICE, vec, graph, inputs, torch.float64), 0)  # float64 is never rounded


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("graph", ALL_GRAPHS)
@pytest.mark.parametrize("name", sorted(set(CASES) - set(DIFFERENTIABLE)))
def test_every_operator_without_derivatives(name, graph, dtype):
    chosen = case(name, *ALL_GRAPHS[graph])
    found, expected = (chosen.function(ops)(*cast(chosen.inputs, dtype, d).values()) for d in (DEVICE, "cpu"))
    for value, exact in zip(*(v if isinstance(v, tuple) else (v,) for v in (found, expected)), strict=True):
        assert torch.equal(value.cpu(), exact)


@pytest.mark.parametrize("dtype, tolerance", TOLERANCES)
@pytest.mark.parametrize(
    "name, graph",
    # about atoms in a line there is no length across any axis: smooth torsions are rounding alone
    [(name, graph) for name in DIFFERENTIABLE for graph in ALL_GRAPHS if (name[:6], graph) != ("smooth", "line")],
)
def test_every_operator(name, graph, dtype, tolerance):
    chosen = case(name, *ALL_GRAPHS[graph], MODEL_SIZES)
    given = cast(chosen.inputs, dtype)
    expected = derivatives(chosen.function(reference), cast(given, torch.float64))
    assert_close(derivatives(chosen.function(ops), cast(given, dtype, DEVICE)), expected, tolerance)


def test_second_derivatives_numerically():
    vec, graph = small_graph()
    function = gated_function(ops, vec.to(DEVICE), on_device(graph, DEVICE))
    inputs = cast(gated_inputs(vec, num_spherical=2, num_radial=2, channels=3), torch.float64, DEVICE)
    leaves = [value.requires_grad_() for value in inputs.values()]
    assert torch.autograd.gradcheck(function, leaves, nondet_tol=0)
    assert torch.autograd.gradgradcheck(function, leaves, nondet_tol=0)


# ---- models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize("shape", [SMALL, dict(num_layers=2)], ids=["small", "default"])
def test_a_model_and_its_training_gradients(shape, dtype, tolerance):
    torch.manual_seed(0)
    model = with_outputs(SphereNet(**shape)).double().train()
    data = labeled_batch((9, 12, 1, 4))
    twin = copy.deepcopy(model).to(DEVICE, dtype)
    results = []
    for one, given in ((twin, moved(data, DEVICE, dtype)), (model, data)):
        energy, forces = one.energy_and_forces(given)
        (energy.square().sum() + forces.square().sum()).backward()
        results.append({"energy": energy.detach(), "forces": forces.detach()})
        results[-1] |= {name: parameter.grad for name, parameter in one.named_parameters()}
    assert_close(*results, tolerance)


def test_autocast_runs_the_operators_in_float32():
    model = with_outputs(SphereNet(**SMALL)).to(DEVICE)
    data = moved(labeled_batch((9, 12)), DEVICE, torch.float32)
    expected = model(data)
    with torch.autocast(DEVICE, torch.bfloat16):
        # bfloat16 has 8 bits, 4e-3, and there are some ten layers with numbers of order 1
        torch.testing.assert_close(model(data), expected, rtol=0.05, atol=0.05)


def test_the_same_bits_on_every_run():
    torch.manual_seed(0)
    model = with_outputs(SphereNet(**SMALL)).to(DEVICE).train()
    data = moved(labeled_batch((20, 25, 13)), DEVICE, torch.float32)

    def run():
        model.zero_grad()
        energy, forces = model.energy_and_forces(data)
        (energy.sum() + forces.square().sum()).backward()
        return [energy, forces, *(parameter.grad.clone() for parameter in model.parameters())]

    first = run()
    for _ in range(3):
        assert all(torch.equal(one, other) for one, other in zip(run(), first, strict=True))


# ---- the search for neighbors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", [(7,), (1, 9, 2), (33, 1, 64), (3,) * 500, (400,)], ids=len)
def test_the_same_graph_as_on_the_cpu(sizes, dtype):
    generator = torch.Generator().manual_seed(0)
    pos = 4 * torch.rand(sum(sizes), 3, generator=generator, dtype=dtype)
    batch = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    found, expected = radius_graph(pos.to(DEVICE), batch.to(DEVICE), 1.5), radius_graph(pos, batch, 1.5)
    for name, value in expected._asdict().items():
        mine = getattr(found, name)
        assert torch.equal(mine.cpu(), value) if isinstance(value, torch.Tensor) else mine == value, name


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(pos=torch.full((3, 3), torch.nan)), "pos: expected finite positions"),
        (dict(pos=torch.zeros(3, 3)), "pos: expected atoms at least 1e-06 Å apart, got atoms 0 and 1"),
        (dict(batch=torch.tensor([0, 1, 0])), "batch: expected sorted, got 0 after 1 at atom 2"),
        (dict(batch=torch.tensor([-1, 0, 0])), "batch: expected no negative numbers, got -1"),
    ],
)
def test_wrong_positions_get_the_errors_of_the_cpu(change, message):
    given = dict(pos=torch.eye(3), batch=torch.zeros(3, dtype=torch.int64)) | change
    for device in ("cpu", DEVICE):
        with pytest.raises(ValueError, match=message):
            radius_graph(given["pos"].to(device), given["batch"].to(device), 5.0)
