"""The CUDA kernels of the smaller operators, run on the CPU, against the readable operators in float64."""

import math

import pytest
import torch
from cuda_operators import padded
from operator_cases import (
    GRAPHS,
    assert_close,
    assert_silu_far_away,
    bessel_constants,
    cast,
    crowd,
    derivatives,
)

from spherenet_fast.ops import reference

CUTOFF = 5.0
ALL_GRAPHS = {**GRAPHS, "crowd": crowd()}

# float64: a few roundings of 1e-16, in second derivatives times squares of arguments up to 80.
# float32: the radial basis is computed in float64 and rounded once, to 6e-8; the others round a few times.
PRECISIONS = [(torch.float64, 1e-11), (torch.float32, 1e-5)]


def compare(operators, name, given, *constants, tolerance):
    """Values and both derivatives of an operator in the dtype of the inputs by name, against those in float64."""
    found = derivatives(lambda *inputs: getattr(operators, name)(*inputs, *constants), given)
    exact = cast(given, torch.float64)
    expected = derivatives(lambda *inputs: getattr(reference, name)(*inputs, *constants), exact)
    assert_close(found, expected, tolerance)


# ---- radial_basis ----------------------------------------------------------------------------------------------------


def radial_inputs(num_radial, num_edges=600):
    """Distances from 0.4 Å to beyond the cutoff, more than one chunk of them; frequencies near n pi."""
    distance = torch.linspace(0.4, 1.2 * CUTOFF, num_edges, dtype=torch.float64)
    number = torch.arange(1, num_radial + 1).double()
    return {"distance": distance, "frequency": math.pi * number + 0.1 * torch.cos(number)}


@pytest.mark.parametrize("dtype, tolerance", PRECISIONS)
@pytest.mark.parametrize("num_spherical, num_radial", [(7, 6), (1, 1), (1, 16), (2, 4), (8, 1), (8, 16)])
def test_radial_basis(cuda_operators, num_spherical, num_radial, dtype, tolerance):
    constants = *bessel_constants(num_spherical, num_radial), CUTOFF, 5
    given = cast(radial_inputs(num_radial), dtype)
    compare(cuda_operators, "radial_basis", given, *constants, tolerance=tolerance)


@pytest.mark.parametrize("num_edges", [0, 1, 31, 32, 33, 511, 512, 513, 1025])
def test_radial_basis_of_every_number_of_edges(cuda_operators, num_edges):
    constants = *bessel_constants(3, 4), CUTOFF, 5
    compare(cuda_operators, "radial_basis", radial_inputs(4, num_edges), *constants, tolerance=1e-11)


@pytest.mark.parametrize("exponent", [0, 1, 8])
def test_radial_basis_with_any_envelope(cuda_operators, exponent):
    constants = *bessel_constants(2, 4), CUTOFF, exponent
    compare(cuda_operators, "radial_basis", radial_inputs(4), *constants, tolerance=1e-11)


@pytest.mark.parametrize("absent", [0, 1])
def test_radial_basis_without_one_tangent(cuda_operators, absent):
    """A null tangent is the same as zeros."""
    inputs, constants = radial_inputs(4, 70), bessel_constants(3, 4)

    def double_backward(tangents):
        outputs = [torch.full(shape, math.nan).double() for shape in ((70, 4), (70, 3, 4), (70,), (1, 4))]
        cuda_operators.call(
            "radial_basis", **{"pass": 2}, num_edges=70, num_spherical=3, num_radial=4, envelope_exponent=5,
            cutoff=CUTOFF, **inputs, roots=constants[0], scale=constants[1], grad_bessel=torch.ones(70, 4).double(),
            grad_radial=torch.ones(70, 3, 4).double(), distance_tangent=tangents[0], frequency_tangent=tangents[1],
            bessel=outputs[0], radial=outputs[1], grad_distance=outputs[2], grad_frequency=outputs[3],
        )  # fmt: skip
        return outputs

    tangents = [torch.ones_like(value) for value in inputs.values()]
    tangents[absent].zero_()
    with_zeros = double_backward(tangents)
    tangents[absent] = None
    assert all(torch.equal(a, b) for a, b in zip(double_backward(tangents), with_zeros, strict=True))


# ---- silu ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, tolerance", PRECISIONS)
@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 1023, 1024, 1025, 2100])
def test_silu(cuda_operators, size, dtype, tolerance):
    x = torch.linspace(-8.2, 8.3, size, dtype=torch.float64)
    compare(cuda_operators, "silu", cast({"x": x}, dtype), tolerance=tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_silu_far_away(cuda_operators, dtype):
    assert_silu_far_away(cuda_operators.silu, dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_silu_of_numbers_at_any_address(cuda_operators, dtype):
    x = torch.linspace(-3, 3, 100).to(dtype)
    assert torch.equal(cuda_operators.silu(x[1:]), cuda_operators.silu(x)[1:])


# ---- segment_sum, gather, sum_chunks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("channels", [1, 20, 64, 70])
@pytest.mark.parametrize("name", ALL_GRAPHS)
def test_sums_over_receivers_and_senders(cuda_operators, name, channels, dtype):
    """The rows are added in the order of the edges, so every bit is that of a plain loop."""
    _, graph = ALL_GRAPHS[name]
    x = torch.randn(graph.edge_index.shape[1], channels).to(dtype)
    for ptr, index in ((graph.in_ptr, None), (graph.out_ptr, graph.out_edge)):
        expected = torch.zeros(len(ptr) - 1, channels, dtype=dtype)
        for n, row in enumerate(expected):
            for k in range(ptr[n], ptr[n + 1]):
                row += x[k if index is None else index[k]]
        assert torch.equal(cuda_operators.segment_sum(x, ptr, index), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("channels", [1, 20, 64, 70])
@pytest.mark.parametrize("name", ALL_GRAPHS)
def test_gather(cuda_operators, name, channels, dtype):
    _, graph = ALL_GRAPHS[name]
    x = torch.randn(len(graph.in_ptr) - 1, channels).to(dtype)
    for index in graph.edge_index:
        assert torch.equal(cuda_operators.gather(x, index.contiguous()), x[index])


@pytest.mark.parametrize("name", ["batch", "star", "no edges"])
def test_rows_of_the_padding(cuda_operators, name):
    """Sums do not read the rows of edges past the last offset, and -1 gathers a row of zeros."""
    vec, graph = GRAPHS[name]
    _, longer = padded(vec, graph, 5)
    edges = len(vec)
    x = torch.randn(edges + 5, 8)
    x[edges:] = math.nan
    for ptr, index in ((longer.in_ptr, None), (longer.out_ptr, longer.out_edge)):
        found = cuda_operators.segment_sum(x, ptr, index)
        assert torch.equal(found, cuda_operators.segment_sum(x[:edges], ptr, None if index is None else index[:edges]))
    receivers = torch.cat([graph.edge_index[1], torch.full((5,), -1)])
    found = cuda_operators.gather(torch.randn(len(graph.in_ptr) - 1, 8), receivers)
    assert found.isfinite().all() and (found[edges:] == 0).all()


def test_gather_where_there_is_no_row(cuda_operators):
    x = torch.randn(3, 8)
    found = cuda_operators.gather(x, torch.tensor([2, -1, 0]))
    assert torch.equal(found, torch.stack([x[2], torch.zeros(8), x[0]]))


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-14), (torch.float32, 1e-7)])  # rounded once
@pytest.mark.parametrize("chunks, size", [(0, 5), (1, 1), (3, 40), (16, 32), (256, 33), (250, 100), (5, 0)])
def test_sum_chunks(cuda_operators, chunks, size, dtype, tolerance):
    parts = torch.randn(chunks, size).to(dtype)
    expected = parts.double().sum(0)
    torch.testing.assert_close(cuda_operators.sum_chunks(parts).double(), expected, rtol=tolerance, atol=tolerance)
