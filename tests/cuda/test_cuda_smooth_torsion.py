"""The CUDA kernels of the smooth torsion, and of the gated sum that takes one, run on the CPU."""

import pytest
import torch
from cuda_operators import padded
from gated_sum_cases import TOLERANCES
from operator_cases import GRAPHS, assert_close, cast, crowd, derivatives, gated_inputs
from test_cuda_gated_sum import DEFAULT, ODD

from spherenet_fast import ops
from spherenet_fast.graph import build_graph
from spherenet_fast.ops import reference

ALL_GRAPHS = {**GRAPHS, "crowd": crowd()}
DTYPES = [torch.float64, torch.float32]
# Sums of terms of order 1. float32 rounds to 6e-8, which is 1e-5 of 1 - x where two neighbors are close about an axis
# and nobody else is there.
TORSION_TOLERANCES = [(torch.float64, 1e-11), (torch.float32, 5e-5)]


def torsion_inputs(vec):
    """direction, fade by name, float64."""
    fade = torch.rand(len(vec), generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return {"direction": vec / vec.norm(dim=1, keepdim=True), "fade": fade}


def compare(operators, expected_of, graph, inputs, even, tolerance):
    """Values and both derivatives in the dtype of the inputs, against those of the module `expected_of` in float64."""
    found = derivatives(lambda *given: operators.smooth_torsion(*given, graph, even), inputs)
    exact = cast(inputs, torch.float64)
    assert_close(found, derivatives(lambda *given: expected_of.smooth_torsion(*given, graph, even), exact), tolerance)


@pytest.mark.parametrize("dtype, tolerance", TORSION_TOLERANCES)
@pytest.mark.parametrize("even", [False, True], ids=["odd", "even"])
@pytest.mark.parametrize("name", [name for name in ALL_GRAPHS if name != "line"])
def test_every_graph(cuda_operators, name, even, dtype, tolerance):
    vec, graph = ALL_GRAPHS[name]
    compare(cuda_operators, reference, graph, cast(torsion_inputs(vec), dtype), even, tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
def test_atoms_in_a_line_have_none(cuda_operators, dtype):
    """Nobody has a weight: (1e-7)^2 in float32, over the least sum of weights, 1e-3."""
    vec, graph = GRAPHS["line"]
    found = derivatives(lambda *given: cuda_operators.smooth_torsion(*given, graph), cast(torsion_inputs(vec), dtype))
    assert all((tensor.abs() < 1e-10).all() for tensor in found.values())


@pytest.mark.parametrize("num_in, num_out", [(511, 2), (512, 1), (513, 2), (1100, 1), (20, 300), (1, 40)])
def test_very_many_neighbors(cuda_operators, num_in, num_out):
    """As many as shared memory holds, and more, which come in portions."""
    edges = [(k + 1, 0) for k in range(num_in)] + [(0, k + 1) for k in range(num_out)]
    graph = build_graph(torch.tensor(edges).T, max(num_in, num_out) + 1)
    vec = torch.randn(len(edges), 3, dtype=torch.float64)
    # float64: sums over a thousand neighbors
    compare(cuda_operators, ops, graph, torsion_inputs(vec), False, 1e-11)


def passes(operators, graph, inputs, grad_point, tangents):
    """Value, gradients and second derivatives along given cotangents."""
    leaves = [value.clone().requires_grad_() for value in inputs.values()]
    grad_point = grad_point.clone().requires_grad_()
    value = operators.smooth_torsion(*leaves, graph)
    first = torch.autograd.grad(value, leaves, grad_point, create_graph=True)
    return [value, *first, *torch.autograd.grad(first, [*leaves, grad_point], tangents)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["batch", "not symmetric", "isolated last", "no edges"])
def test_padding(cuda_operators, name, dtype):
    """Edges past in_ptr[N] and columns past triplet_ptr[N] change nothing, whatever they hold, and get zeros."""
    vec, graph = GRAPHS[name]
    edges, triplets = len(vec), graph.num_triplets
    inputs = cast(torsion_inputs(vec), dtype)
    tangents = [torch.randn_like(value) for value in inputs.values()]
    grad_point = torch.randn(2, triplets, dtype=dtype)

    def longer(value, dim=0, extra=7):
        shape = [*value.shape]
        shape[dim] = extra
        return torch.cat([value, value.new_full(shape, torch.nan)], dim)

    expected = passes(cuda_operators, graph, inputs, grad_point, tangents)
    found = passes(
        cuda_operators,
        padded(vec, graph, 7)[1]._replace(num_triplets=triplets + 9),
        {name: longer(value) for name, value in inputs.items()},
        longer(grad_point, 1, 9),
        [longer(value) for value in tangents],
    )
    for exact, tensor in zip(expected, found, strict=True):
        dim, size = (1, triplets) if tensor.shape == (2, triplets + 9) else (0, edges)
        assert torch.equal(tensor.narrow(dim, 0, size), exact)
        assert (tensor.narrow(dim, size, tensor.shape[dim] - size) == 0).all()


@pytest.mark.parametrize("absent", ["direction", "fade"])
def test_one_tangent(cuda_operators, absent):
    """A null tangent is the same as zeros."""
    vec, graph = GRAPHS["batch"]
    inputs = torsion_inputs(vec)
    fixed = list(inputs).index(absent)
    tangents = [torch.randn_like(value) for value in inputs.values()]
    tangents[fixed].zero_()
    grad_point = torch.randn(2, graph.num_triplets, dtype=torch.float64)
    with_zeros = passes(cuda_operators, graph, inputs, grad_point, tangents)
    leaves = [value.clone().requires_grad_() for value in inputs.values()]
    grad_point.requires_grad_()
    first = torch.autograd.grad(cuda_operators.smooth_torsion(*leaves, graph), leaves, grad_point, create_graph=True)
    second = torch.autograd.grad(first[1 - fixed], [*leaves, grad_point], tangents[1 - fixed])
    assert all(torch.equal(one, other) for one, other in zip(second, with_zeros[3:], strict=True))


# ---- the gated sum ---------------------------------------------------------------------------------------------------


def gated_with_torsion(vec, graph, **sizes):
    """The differentiable inputs of gated_sum by name, with any numbers in place of a torsion."""
    inputs = gated_inputs(vec, **sizes)
    point = torch.rand(2, graph.num_triplets, generator=torch.Generator().manual_seed(5), dtype=torch.float64) - 0.5
    names = [*inputs]
    return {name: inputs[name] for name in names[:3]} | {"torsion": point} | {name: inputs[name] for name in names[3:]}


def gated_sum(operators, graph, *options):
    def function(x, radial, direction, torsion, *weights):
        return operators.gated_sum(x, radial, direction, torsion, graph, *weights, *options)

    return function


@pytest.mark.parametrize("dtype, tolerance", TOLERANCES)
@pytest.mark.parametrize(
    "name, shape", [*((name, DEFAULT) for name in GRAPHS if name != "star"), ("star", ODD), ("batch", ODD)]
)
def test_gated_sum_of_every_graph(cuda_operators, name, shape, dtype, tolerance):
    vec, graph = ALL_GRAPHS[name]
    inputs = cast(gated_with_torsion(vec, graph, **shape), dtype)
    found = derivatives(gated_sum(cuda_operators, graph), inputs)
    expected = derivatives(gated_sum(reference, graph), cast(inputs, torch.float64))
    assert_close(found, expected, tolerance)


@pytest.mark.parametrize("dtype, tolerance", TOLERANCES)
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1, 1), (8, 3, 70, 8, 17), (2, 2, 130, 8, 8), (2, 2, 200, 40, 33)], ids=str)
def test_gated_sum_of_several_blocks_and_groups(cuda_operators, sizes, dtype, tolerance):
    vec, graph = GRAPHS["not symmetric"]
    names = ("num_spherical", "num_radial", "channels", "angle_size", "torsion_size")
    inputs = cast(gated_with_torsion(vec, graph, **dict(zip(names, sizes, strict=True))), dtype)
    found = derivatives(gated_sum(cuda_operators, graph, "dig"), inputs)
    expected = derivatives(gated_sum(reference, graph, "dig"), cast(inputs, torch.float64))
    assert_close(found, expected, tolerance)


@pytest.mark.parametrize("sizes", [(64, 8, 8), (5, 17, 9)], ids=str)
def test_gated_sum_in_tf32(cuda_operators, sizes):
    """As exact as without a smooth torsion: expansions are rounded to ten binary digits, four operands a product."""
    vec, graph = GRAPHS["batch"]
    inputs = gated_with_torsion(vec, graph, **dict(zip(("channels", "angle_size", "torsion_size"), sizes, strict=True)))
    expected = gated_sum(reference, graph)(*inputs.values())
    x, radial, direction, torsion, *weights = cast(inputs, torch.float32).values()
    found = cuda_operators.gated_sum(x, radial, direction, torsion, graph, *weights, allow_tf32=True)
    assert (found.double() - expected).norm() <= 1e-3 * expected.norm()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [DEFAULT, ODD], ids=["default", "odd"])
@pytest.mark.parametrize("name", ["batch", "not symmetric", "no edges"])
def test_gated_sum_with_padding(cuda_operators, name, shape, dtype):
    """Columns past the last pair change nothing and get zeros, in both derivatives."""
    vec, graph = GRAPHS[name]
    triplets = graph.num_triplets
    inputs = cast(gated_with_torsion(vec, graph, **shape), dtype)
    columns = inputs["torsion"].new_full((2, 9), torch.nan)
    longer = inputs | {"torsion": torch.cat([inputs["torsion"], columns], 1)}
    tangents = {name: torch.randn_like(value) for name, value in inputs.items()}
    results = []
    for given, room, of_torsion in (
        (inputs, graph, tangents["torsion"]),
        (longer, graph._replace(num_triplets=triplets + 9), torch.cat([tangents["torsion"], columns], 1)),
    ):
        leaves = [value.clone().requires_grad_() for value in given.values()]
        value = gated_sum(cuda_operators, room)(*leaves)
        first = torch.autograd.grad(value, leaves, torch.ones_like(value), create_graph=True)
        along = list((tangents | {"torsion": of_torsion}).values())
        results.append([value, *first, *torch.autograd.grad(first, leaves, along)])
    for exact, found in zip(*results, strict=True):
        if found.shape == exact.shape:
            assert torch.equal(found, exact)
        else:
            assert torch.equal(found[:, :triplets], exact) and (found[:, triplets:] == 0).all()


@pytest.mark.parametrize("shape", [DEFAULT, ODD], ids=["default", "odd"])
def test_gated_sum_without_gradients_of_the_geometry(cuda_operators, shape):
    vec, graph = GRAPHS["batch"]
    inputs = gated_with_torsion(vec, graph, **shape)

    def gradients(**asked):
        leaves = {name: value.clone().requires_grad_() for name, value in inputs.items()}
        x, radial, direction, torsion, *weights = leaves.values()
        value = cuda_operators.gated_sum(x, radial, direction, torsion, graph, *weights, **asked)
        found = torch.autograd.grad(value.square().sum(), list(leaves.values()), allow_unused=True)
        return {name: gradient for name, gradient in zip(leaves, found, strict=True) if gradient is not None}

    every, some = gradients(), gradients(geometry=False)
    assert every.keys() - some.keys() == {"radial", "direction", "torsion"}
    assert all(torch.equal(gradient, every[name]) for name, gradient in some.items())
