"""The CUDA kernels of the gated sum, run on the CPU, against the readable operator in float64."""

import pytest
import torch
from cuda_operators import padded
from gated_sum_cases import GATES, SHAPES, TOLERANCES, compare
from operator_cases import GRAPHS, cast, crowd, derivatives, gated_function, gated_inputs, receiver_inputs

from spherenet_fast.ops import reference

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


def all_passes(operators, vec, graph, inputs, tangents_of=lambda names: names, **asked):
    """Value, gradients and second derivatives along fixed cotangents; tangents_of(names) are those that are not None.

    Rows past the last edge of `vec`, if inputs have more, are NaN in every cotangent.
    """
    generator = torch.Generator().manual_seed(1)

    def cotangent(name, value):
        rows = value.shape[0] if name in WEIGHTS else len(vec)
        drawn = torch.randn(rows, *value.shape[1:], generator=generator, dtype=torch.float64).to(value.dtype)
        return torch.cat([drawn, drawn.new_full((value.shape[0] - rows, *value.shape[1:]), torch.nan)])

    torsions = reference.torsion_reference(vec, graph)
    leaves = {name: value.requires_grad_() for name, value in cast(inputs, inputs["x"].dtype).items()}
    x, radial, direction, *weights = leaves.values()
    longer = padded(vec, graph, len(x) - len(vec))[1]
    value = operators.gated_sum(x, radial, direction, torsions, longer, *weights, **asked)
    grad_out = cotangent("x", x).requires_grad_()
    first = torch.autograd.grad(value, list(leaves.values()), grad_out, create_graph=True, allow_unused=True)
    first = {name: gradient for name, gradient in zip(leaves, first, strict=True) if gradient is not None}
    tangents = {name: cotangent(name, value) for name, value in leaves.items()}
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
    found = all_passes(cuda_operators, vec, graph, inputs, lambda _: names, geometry=geometry, weights=weights)
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


@pytest.mark.parametrize("gates", GATES[:2], ids=["torsion", "angle"])
@pytest.mark.parametrize("sizes", [(64, 8, 8), (70, 3, 8), (5, 17, 9)], ids=str)
@pytest.mark.parametrize("name", ["batch", "star", "not symmetric", "no edges"])
def test_tf32(cuda_operators, name, sizes, gates):
    """The expansions alone are rounded: to ten binary digits, 5e-4 an operand, four operands a product of factors."""
    vec, graph = GRAPHS[name]
    inputs = gated_inputs(vec, 7, 6, *sizes, **gates)
    expected = gated_function(reference, vec, graph)(*inputs.values())
    torsions = reference.torsion_reference(vec, graph)
    x, radial, direction, *weights = cast(inputs, torch.float32).values()
    found, exact = (
        cuda_operators.gated_sum(x, radial, direction, torsions, graph, *weights, allow_tf32=allow)
        for allow in (True, False)
    )
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
    torsions = reference.torsion_reference(vec, graph)
    x, radial, direction, *weights = cast(inputs, torch.float32).values()
    found = cuda_operators.gated_sum(x, radial, direction, torsions, graph, *weights, allow_tf32=True)
    expected = gated_function(reference, vec, graph)(*inputs.values())
    assert (found.double() - expected).norm() <= 1e-5 * expected.norm()  # of float32, as without tensor cores
