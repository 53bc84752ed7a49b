"""The CUDA kernels of the gated sum, run on the CPU, against the readable operator in float64."""

import pytest
import torch
from gated_sum_cases import GATES, SHAPES, TOLERANCES, compare
from operator_cases import (
    assert_close,
    cast,
    derivatives,
    gated_function,
    gated_inputs,
    paper_torsions,
    receiver_inputs,
)
from operator_graphs import GRAPHS, chain, crowd, padded

from spherenet_fast.ops import reference
from spherenet_fast.ops._register import graph_arrays

DEFAULT, ODD = SHAPES[0], SHAPES[4]
WEIGHTS = ("angle_weight", "angle_expand", "torsion_weight", "torsion_expand")


@pytest.mark.parametrize("dtype, tolerance", TOLERANCES)
@pytest.mark.parametrize("basis", ["paper", "dig"])
@pytest.mark.parametrize("gates", GATES, ids=["torsion", "angle", "plain"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape.values())))
def test_every_size(cuda_operators, shape, gates, basis, dtype, tolerance):
    vec, graph = GRAPHS["not symmetric"]
    compare(cuda_operators, vec, graph, gated_inputs(vec, **shape, **gates), basis, dtype, tolerance)


@pytest.mark.parametrize("dtype, tolerance", TOLERANCES)
@pytest.mark.parametrize("num_spherical", range(1, 9))
def test_every_degree(cuda_operators, num_spherical, dtype, tolerance):
    vec, graph = GRAPHS["batch"]
    inputs = gated_inputs(vec, num_spherical, 6, 5, 8, 8)
    compare(cuda_operators, vec, graph, inputs, "paper", dtype, tolerance)


@pytest.mark.parametrize("dtype, tolerance", TOLERANCES)
@pytest.mark.parametrize("shape", [DEFAULT, ODD], ids=["default", "odd"])
@pytest.mark.parametrize("name", [*GRAPHS, "crowd"])
def test_every_graph(cuda_operators, name, shape, dtype, tolerance):
    vec, graph = {**GRAPHS, "crowd": crowd()}[name]
    compare(cuda_operators, vec, graph, gated_inputs(vec, **shape), "paper", dtype, tolerance)


@pytest.mark.parametrize(
    "num_atoms, dtype, tolerance",
    [
        (130, *TOLERANCES[0]),
        (130, *TOLERANCES[1]),
        (200, *TOLERANCES[0]),
        (300, *TOLERANCES[1]),
        (1030, *TOLERANCES[1]),
    ],
)
def test_more_atoms_than_blocks(cuda_operators, num_atoms, dtype, tolerance):
    """The backward pass takes tiles in three parts, in two, in one; and several tiles a block."""
    vec, graph = chain(num_atoms)
    inputs = gated_inputs(vec, 2, 2, 4, 2, 3)
    compare(cuda_operators, vec, graph, inputs, "paper", dtype, tolerance)


@pytest.mark.parametrize("dtype, tolerance", TOLERANCES)
@pytest.mark.parametrize("shape", [DEFAULT, ODD], ids=["default", "odd"])
@pytest.mark.parametrize("name", ["batch", "star", "periodic", "not symmetric", "no edges"])
def test_angles_at_the_receiver(cuda_operators, name, shape, dtype, tolerance):
    vec, graph = GRAPHS[name]
    compare(cuda_operators, vec, graph, receiver_inputs(vec, **shape), "paper", dtype, tolerance, "receiver")


@pytest.mark.parametrize("dtype, tolerance", TOLERANCES)
@pytest.mark.parametrize("name, sizes", [("star", (130, 8, 8)), ("star", (20, 9, 17)), ("batch", (200, 40, 33))])
def test_several_blocks_of_channels_and_groups_of_basis_channels(cuda_operators, name, sizes, dtype, tolerance):
    """With few neighbors and with many: chunks shrink to what fits into shared memory."""
    vec, graph = GRAPHS[name]
    compare(cuda_operators, vec, graph, gated_inputs(vec, 2, 2, *sizes), "paper", dtype, tolerance)


def test_more_than_fits_into_shared_memory(cuda_operators):
    vec, graph = GRAPHS["one pair of atoms"]
    inputs = gated_inputs(vec, 3, 2, 5, 3000, 8)
    with pytest.raises(RuntimeError, match="gated_sum.*too many rows, 3000 and 8"):
        gated_function(cuda_operators, vec, graph)(*inputs.values())


# ---- what is asked for, and what is given ----------------------------------------------------------------------------


def all_passes(operators, vec, graph, inputs, tangents_of=lambda names: names, asked=None):
    """Value, gradients and second derivatives along fixed cotangents; tangents_of(names) are those that are not None.

    asked: names of the inputs whose gradients, and derivatives of gradients, are asked for; None: of all.
    Rows past the last edge of `vec`, if inputs have more, are NaN in every cotangent.
    """
    generator = torch.Generator().manual_seed(1)

    def cotangent(name, value):
        rows = value.shape[0] if name in WEIGHTS else len(vec)
        drawn = torch.randn(rows, *value.shape[1:], generator=generator, dtype=torch.float64).to(value.dtype)
        return torch.cat([drawn, drawn.new_full((value.shape[0] - rows, *value.shape[1:]), torch.nan)])

    torsions = paper_torsions(reference, vec, graph)
    leaves = {name: value.requires_grad_() for name, value in cast(inputs, inputs["x"].dtype).items()}
    x, radial, direction, *weights = leaves.values()
    longer = padded(vec, graph, len(x) - len(vec))[1]
    value = operators.gated_sum(x, radial, direction, torsions, longer, *weights)
    grad_out = cotangent("x", x).requires_grad_()
    tangents = {name: cotangent(name, value) for name, value in leaves.items()}
    leaves = {name: leaf for name, leaf in leaves.items() if asked is None or name in asked}
    first = torch.autograd.grad(value, list(leaves.values()), grad_out, create_graph=True, allow_unused=True)
    first = {name: gradient for name, gradient in zip(leaves, first, strict=True) if gradient is not None}
    along = [name for name in first if name in tangents_of([*leaves])]
    targets = {**leaves, "grad_out": grad_out}
    second = torch.autograd.grad(
        [first[name] for name in along], list(targets.values()), [tangents[name] for name in along], allow_unused=True
    )
    second = {
        f"second {name}": gradient for name, gradient in zip(targets, second, strict=True) if gradient is not None
    }
    return {"value": value, **{f"first {name}": gradient for name, gradient in first.items()}, **second}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", [DEFAULT, ODD], ids=["default", "odd"])
@pytest.mark.parametrize("name", ["batch", "not symmetric", "no edges"])
def test_padding(cuda_operators, name, shape, dtype):
    """Edges past in_ptr[N] change nothing, whatever is in their rows, and get zeros."""
    vec, graph = GRAPHS[name]
    inputs = cast(gated_inputs(vec, **shape), dtype)
    longer = {
        key: value if key in WEIGHTS else torch.cat([value, value.new_full((7, *value.shape[1:]), torch.nan)])
        for key, value in inputs.items()
    }
    expected, found = (all_passes(cuda_operators, vec, graph, given) for given in (inputs, longer))
    assert expected.keys() == found.keys()
    for key, tensor in found.items():
        assert torch.equal(tensor[: len(expected[key])], expected[key]), key
        assert (tensor[len(expected[key]) :] == 0).all(), key


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", [DEFAULT, ODD], ids=["default", "odd"])
@pytest.mark.parametrize("geometry, weights", [(False, False), (False, True), (True, False)])
def test_gradients_asked_for(cuda_operators, shape, geometry, weights, dtype):
    """What is asked for does not depend on what else is."""
    vec, graph = GRAPHS["batch"]
    inputs = cast(gated_inputs(vec, **shape), dtype)
    names = ["x", *["radial", "direction"] * geometry, *WEIGHTS * weights]
    every = all_passes(cuda_operators, vec, graph, inputs, lambda _: names)
    found = all_passes(cuda_operators, vec, graph, inputs, lambda _: names, names)
    assert {f"first {name}" for name in names} == {key for key in found if key.startswith("first")}
    assert all(torch.equal(tensor, every[key]) for key, tensor in found.items())


@pytest.mark.parametrize("name", ["x", "radial", "direction", *WEIGHTS])
def test_one_tangent(cuda_operators, name):
    """Tangents that are null are 0."""
    vec, graph = GRAPHS["batch"]
    inputs = gated_inputs(vec, **ODD)
    found, expected = (
        all_passes(operators, vec, graph, inputs, lambda _: [name]) for operators in (cuda_operators, reference)
    )
    for key, tensor in expected.items():
        # the reference says nothing where its second derivative vanishes: that by the only input with a tangent
        scale = max(tensor.norm(), 1)
        assert (found[key] - tensor).norm() <= 1e-11 * scale, key
    for key in found.keys() - expected.keys():
        assert (found[key] == 0).all(), key


def test_inputs_at_any_address(cuda_operators):
    """Rows of `up` are read as vectors where they can be."""
    vec, graph = GRAPHS["batch"]
    inputs = cast(gated_inputs(vec, **DEFAULT), torch.float32)
    shifted = {
        name: torch.cat([value.new_zeros(1), value.flatten()])[1:].view(value.shape) for name, value in inputs.items()
    }
    assert any(value.data_ptr() % 16 for value in shifted.values())
    expected, found = (derivatives(gated_function(cuda_operators, vec, graph), given) for given in (inputs, shifted))
    assert all(torch.equal(found[key], expected[key]) for key in expected)


# ---- tensor cores ----------------------------------------------------------------------------------------------------


def rounded(operators, graph, inputs, torsions, tf32=True):
    """The sum of float32 inputs, with the factors of products rounded to TF32 or not."""
    x, radial, direction, *weights = cast(inputs, torch.float32).values()
    smooth = torsions.to(torch.float32) if torsions.is_floating_point() else None
    given = x, radial, direction, smooth, *weights, None if smooth is not None else torsions, *graph_arrays(graph)
    return operators.compiled.gated_sum(*given, False, False, tf32)


@pytest.mark.parametrize("gates", GATES[:2], ids=["torsion", "angle"])
@pytest.mark.parametrize("sizes", [(64, 8, 8), (70, 3, 8), (5, 17, 9)], ids=str)
@pytest.mark.parametrize("name", ["batch", "star", "not symmetric", "no edges"])
def test_tf32(cuda_operators, name, sizes, gates):
    """The expansions alone are rounded: to ten binary digits, 5e-4 an operand, four operands a product of factors."""
    vec, graph = GRAPHS[name]
    inputs = gated_inputs(vec, 7, 6, *sizes, **gates)
    expected = gated_function(reference, vec, graph)(*inputs.values())
    torsions = paper_torsions(reference, vec, graph)
    found, exact = (rounded(cuda_operators, graph, inputs, torsions, tf32) for tf32 in (True, False))
    assert (found.double() - expected).norm() <= 1e-3 * expected.norm()
    assert len(vec) == 0 or (found.double() - expected).norm() > 10 * (exact.double() - expected).norm()


def test_tf32_of_numbers_it_can_hold(cuda_operators):
    """Nothing is rounded where weights are powers of two and coefficients sums of a few, of any place in a product."""
    vec, graph = GRAPHS["batch"]
    inputs = gated_inputs(vec, 1, 1, 70, 8, 8)
    generator = torch.Generator().manual_seed(2)
    y00 = 0.25 / torch.pi**0.5 * 2  # harmonic 0, a constant
    for name in WEIGHTS:
        inputs[name] = 2.0 ** torch.randint(-3, 4, inputs[name].shape, generator=generator).double()
    inputs["radial"] = torch.ones_like(inputs["radial"])
    inputs["angle_weight"] /= y00
    inputs["torsion_weight"] /= y00
    torsions = paper_torsions(reference, vec, graph)
    found = rounded(cuda_operators, graph, inputs, torsions)
    expected = gated_function(reference, vec, graph)(*inputs.values())
    assert (found.double() - expected).norm() <= 1e-5 * expected.norm()  # of float32, as without tensor cores


# ---- smooth torsions -------------------------------------------------------------------------------------------------


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
def test_smooth_of_every_graph(cuda_operators, name, shape, dtype, tolerance):
    vec, graph = GRAPHS[name]
    inputs = cast(gated_with_torsion(vec, graph, **shape), dtype)
    found = derivatives(gated_sum(cuda_operators, graph), inputs)
    expected = derivatives(gated_sum(reference, graph), cast(inputs, torch.float64))
    assert_close(found, expected, tolerance)


@pytest.mark.parametrize("dtype, tolerance", TOLERANCES)
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1, 1), (8, 3, 70, 8, 17), (2, 2, 130, 8, 8), (2, 2, 200, 40, 33)], ids=str)
def test_smooth_of_several_blocks_and_groups(cuda_operators, sizes, dtype, tolerance):
    vec, graph = GRAPHS["not symmetric"]
    names = ("num_spherical", "num_radial", "channels", "angle_size", "torsion_size")
    inputs = cast(gated_with_torsion(vec, graph, **dict(zip(names, sizes, strict=True))), dtype)
    found = derivatives(gated_sum(cuda_operators, graph, "dig"), inputs)
    expected = derivatives(gated_sum(reference, graph, "dig"), cast(inputs, torch.float64))
    assert_close(found, expected, tolerance)


@pytest.mark.parametrize("sizes", [(64, 8, 8), (5, 17, 9)], ids=str)
def test_smooth_in_tf32(cuda_operators, sizes):
    """As exact as without a smooth torsion: expansions are rounded to ten binary digits, four operands a product."""
    vec, graph = GRAPHS["batch"]
    inputs = gated_with_torsion(vec, graph, **dict(zip(("channels", "angle_size", "torsion_size"), sizes, strict=True)))
    expected = gated_sum(reference, graph)(*inputs.values())
    torsion = inputs.pop("torsion")
    found = rounded(cuda_operators, graph, inputs, torsion)
    assert (found.double() - expected).norm() <= 1e-3 * expected.norm()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", [DEFAULT, ODD], ids=["default", "odd"])
@pytest.mark.parametrize("name", ["batch", "not symmetric", "no edges"])
def test_smooth_with_padding(cuda_operators, name, shape, dtype):
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
def test_smooth_without_gradients_of_the_geometry(cuda_operators, shape):
    vec, graph = GRAPHS["batch"]
    inputs = gated_with_torsion(vec, graph, **shape)

    def gradients(*names):
        leaves = {name: value.clone().requires_grad_() for name, value in inputs.items()}
        x, radial, direction, torsion, *weights = leaves.values()
        value = cuda_operators.gated_sum(x, radial, direction, torsion, graph, *weights)
        found = torch.autograd.grad(value.square().sum(), [leaves[name] for name in names])
        return dict(zip(names, found, strict=True))

    every, some = gradients(*inputs), gradients("x", *WEIGHTS)
    assert all(torch.equal(gradient, every[name]) for name, gradient in some.items())
