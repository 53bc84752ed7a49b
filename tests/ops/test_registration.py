"""Every compiled operator under torch.library.opcheck: schema, fake, derivatives, and traced by AOT autograd."""

import pytest
import torch
from operator_cases import bessel_constants, cast, gated_inputs, graph_arrays, small_graph

from spherenet_fast import _library, ops
from spherenet_fast.ops.product import CPU_ONLY

VEC, GRAPH = small_graph()
ARRAYS = graph_arrays(GRAPH)
L, K, C = 3, 2, 5
PTR, INDEX = torch.tensor([0, 2, 2, 5]), torch.tensor([3, 1, 0, 4, 2])
ASKED = [(True, True), (True, False), (False, True), (False, False)]  # gradients beside that of x
POS, BATCH = torch.arange(12.0).reshape(4, 3) / 3, torch.tensor([0, 0, 1, 1])  # one pair in each molecule
IN_PTR = torch.arange(5)
ROW = torch.tensor([2, 0, 2, 0, 2])  # the segment that holds each index, as PTR and INDEX say


def samples(dtype):
    """name -> list of argument lists, of every operator, with and without the optional ones."""
    distance, frequency = VEC.norm(dim=1).to(dtype), torch.tensor([3.1, 6.3], dtype=dtype)
    radial = [distance, frequency, *bessel_constants(L, K), 5.0, 5]
    cotangents = [torch.randn(len(VEC), K, dtype=dtype), torch.randn(len(VEC), L, K, dtype=dtype)]
    x, weight = torch.randn(5, C, dtype=dtype), torch.randn(C, 2, dtype=dtype)
    smooth = [(VEC / VEC.norm(dim=1, keepdim=True)).to(dtype), torch.rand(len(VEC), dtype=dtype)]
    point = torch.randn(2, GRAPH.num_pairs, dtype=dtype)
    found = {
        "radial_basis": [radial],
        "radial_basis_backward": [[*cotangents, *radial]],
        "radial_basis_double_backward": [
            [torch.randn_like(distance), torch.randn_like(frequency), *cotangents, *radial],
            [torch.randn_like(distance), None, *cotangents, *radial],
            [None, torch.randn_like(frequency), *cotangents, *radial],
        ],
        "torsion_reference": [[VEC.to(dtype), *ARRAYS, GRAPH.num_pairs]],
        "smooth_torsion": [[*smooth, *ARRAYS, GRAPH.num_pairs, even] for even in (False, True)],
        "smooth_torsion_backward": [[point, *smooth, *ARRAYS, GRAPH.num_pairs, False]],
        "smooth_torsion_double_backward": [
            [*tangents, point, *smooth, *ARRAYS, GRAPH.num_pairs, False]
            for tangents in ([smooth[0] + 1, smooth[1] + 1], [smooth[0] + 1, None], [None, smooth[1] + 1])
        ],
        "neighbor_pointers": [[POS.to(dtype), None, 3.0, -1, -1], [POS.to(dtype), BATCH, 3.0, 8, 10]],
        "neighbor_edges": [[POS.to(dtype), BATCH, IN_PTR, 3.0, 4], [POS.to(dtype), BATCH, IN_PTR, 3.0, 6]],
        "segment_sum": [[x, PTR, None, None], [x, PTR, INDEX, None], [x, PTR, INDEX, ROW]],
        "gather": [[x[:3], ROW.sort().values, PTR, None], [x[:3], ROW, PTR, INDEX]],
        "product": [[x, x[:3] + 1, None], [x, x[:3] + 1, x[0, :3] + 2]],
        "outer_sum": [[x, x[:, :2] + 1]],
        "radial_filter": [[x, x[:, :2], weight]],
        "radial_filter_backward": [[x + 1, x, x[:, :2], weight, *asked] for asked in ASKED],
        "radial_filter_double_backward": [
            [
                x - 1,
                x[:, 1:3] if asked[0] else None,
                weight + 1 if asked[1] else None,
                x + 1,
                x,
                x[:, :2],
                weight,
                *asked,
            ]
            for asked in ASKED
        ],
        "silu": [[x]],
        "silu_backward": [[x, x + 1]],
        "silu_double_backward": [[x, x + 1, x + 2]],
    }
    return found | gated_samples(dtype)


def gated_samples(dtype):
    torsions = ops.torsion_reference(VEC, GRAPH)
    point = torch.randn(2, GRAPH.num_pairs, dtype=dtype)
    found = {"gated_sum": [], "gated_sum_backward": [], "gated_sum_double_backward": []}
    for gates in (dict(), dict(smooth=True), dict(use_torsion=False), dict(use_torsion=False, use_angle=False)):
        smooth = gates.pop("smooth", False)
        inputs = cast(gated_inputs(VEC, L, K, C, **gates), dtype)
        x, radial, direction, *weights = inputs.values()
        chosen = None if weights[2] is None or smooth else torsions
        differentiable = [x, radial, direction, point if smooth else None, *weights]
        arguments = [x, radial, direction, chosen, *differentiable[3:], *ARRAYS, False, False, False]
        tangents = [None if value is None else torch.randn_like(value) for value in differentiable]
        found["gated_sum"].append(arguments)
        for geometry, weighted in ((True, True), (True, False), (False, True), (False, False)):
            cotangent = torch.randn_like(x)
            asked = [True, geometry, geometry, geometry, weighted, weighted, weighted, weighted]
            wanted = [tangent if yes else None for tangent, yes in zip(tangents, asked, strict=True)]
            found["gated_sum_backward"].append([cotangent, *arguments, geometry, weighted])
            found["gated_sum_double_backward"].append([*wanted, cotangent, *arguments, geometry, weighted])
    return found


SAMPLES = {dtype: samples(dtype) for dtype in (torch.float32, torch.float64)}
CALLS = [
    pytest.param(name, arguments, id=f"{name}-{number}-{str(dtype)[6:]}")
    for dtype, operators in SAMPLES.items()
    for name, calls in operators.items()
    for number, arguments in enumerate(calls)
]
_WITHOUT_DERIVATIVE = ("double", "torsion_reference", "neighbor")
DIFFERENTIABLE = [name for name in SAMPLES[torch.float32] if not any(word in name for word in _WITHOUT_DERIVATIVE)]


def test_no_operator_is_left_out():
    registered = {name.split("::")[1] for name in torch._C._dispatch_get_all_op_names() if "spherenet_fast::" in name}
    assert registered == SAMPLES[torch.float32].keys()


@pytest.mark.parametrize("name, arguments", CALLS)
def test_without_derivatives(name, arguments):
    torch.library.opcheck(getattr(torch.ops.spherenet_fast, name).default, tuple(arguments))


def requiring_grad(arguments, dtype):
    """Copies of the arguments: those in dtype require derivatives, except roots and scale of the radial basis."""
    constants = [bessel.shape for bessel in bessel_constants(L, K)]
    return tuple(
        value.clone().requires_grad_()
        if isinstance(value, torch.Tensor) and value.dtype == dtype and value.shape not in constants
        else value
        for value in arguments
    )


@pytest.mark.parametrize("dtype", SAMPLES)
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_with_derivatives(name, dtype):
    for arguments in SAMPLES[dtype][name]:
        given = requiring_grad(arguments, dtype)
        assert any(isinstance(value, torch.Tensor) and value.requires_grad for value in given)
        torch.library.opcheck(getattr(torch.ops.spherenet_fast, name).default, given)


def test_strides_are_as_the_fakes_say():
    """Compiled code believes the fakes: results are contiguous, also where the inputs are not."""
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fakes = {}
        for name, calls in SAMPLES[torch.float64].items():
            given = [mode.from_tensor(_transposed(v)) if isinstance(v, torch.Tensor) else v for v in calls[0]]
            fakes[name] = getattr(torch.ops.spherenet_fast, name)(*given)
    for name, calls in SAMPLES[torch.float64].items():
        found = getattr(torch.ops.spherenet_fast, name)(*[_transposed(value) for value in calls[0]])
        for real, fake in zip(_outputs(found), _outputs(fakes[name]), strict=True):
            assert (real.shape, real.stride(), real.dtype) == (fake.shape, fake.stride(), fake.dtype), name


def _transposed(value):
    """The same matrix, column after column in memory."""
    return value.T.contiguous().T if isinstance(value, torch.Tensor) and value.dim() == 2 else value


def _outputs(found):
    return found if isinstance(found, tuple) else (found,)


def test_every_operator_serves_the_same_devices():
    """The library is built with all CUDA kernels or with none; it loads without a GPU, and without torch's CUDA."""
    names = SAMPLES[torch.float32].keys()

    def with_kernel(device):
        has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
        return {name for name in names if has_kernel(f"spherenet_fast::{name}", device)}

    assert with_kernel("CPU") == names
    assert with_kernel("CUDA") == (names - CPU_ONLY if _library.has_cuda_kernels() else set())
