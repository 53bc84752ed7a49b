"""segment_sum and gather: each the other's derivative, over edges by receiver and by sender."""

import math

import pytest
import torch
from operator_cases import assert_close, cast, derivatives, other, raises, strided
from operator_graphs import GRAPHS, crowd, padded

from spherenet_fast import ops
from spherenet_fast.ops import reference

# float64 sums of at most 60 numbers; float32 rounds each addition to 6e-8
TOLERANCES = [(torch.float64, 1e-14), (torch.float32, 1e-6)]
ALL_GRAPHS = {**GRAPHS, "crowd": crowd()}


def check(name, x, *indices, dtype, tolerance):
    given = cast({"x": x}, dtype)
    found = derivatives(lambda x: getattr(ops, name)(x, *indices), given)
    expected = derivatives(lambda x: getattr(reference, name)(x, *indices), cast(given, torch.float64))
    assert_close(found, expected, tolerance)


@pytest.mark.parametrize("dtype, tolerance", TOLERANCES)
@pytest.mark.parametrize("channels", [1, 20, 64, 70])
@pytest.mark.parametrize("name", ALL_GRAPHS)
def test_sums_over_receivers_and_senders(name, channels, dtype, tolerance):
    _, graph = ALL_GRAPHS[name]
    edges, atoms = graph.edge_index.shape[1], len(graph.in_ptr) - 1
    per_edge, per_atom = torch.randn(edges, channels).double(), torch.randn(atoms, channels).double()
    senders, receivers = graph.edge_index
    for index, ptr, perm in ((receivers, graph.in_ptr, None), (senders, graph.out_ptr, graph.out_edge)):
        check("segment_sum", per_edge, ptr, perm, dtype=dtype, tolerance=tolerance)
        check("gather", per_atom, index, ptr, perm, dtype=dtype, tolerance=tolerance)


def test_by_hand():
    x = torch.arange(8.0).reshape(4, 2).requires_grad_()
    ptr, index = torch.tensor([0, 2, 2, 4]), torch.tensor([3, 0, 1, 2])
    assert ops.segment_sum(x, ptr).tolist() == [[2, 4], [0, 0], [10, 12]]
    assert ops.segment_sum(x, ptr, index).tolist() == [[6, 8], [0, 0], [6, 8]]
    weights = torch.tensor([[1.0], [10.0], [100.0]])
    (gradient,) = torch.autograd.grad((ops.segment_sum(x, ptr, index) * weights).sum(), x)
    assert gradient[:, 0].tolist() == [1, 100, 100, 1]


def test_derivatives_of_any_order():
    _, graph = GRAPHS["batch"]
    x = torch.randn(58, 3, dtype=torch.float64, requires_grad=True)

    def third(operators):
        value = operators.segment_sum(x**4, graph.out_ptr, graph.out_edge)
        value = operators.gather(value**4, graph.edge_index[1], graph.in_ptr).sum()
        for _ in range(3):
            (slope,) = torch.autograd.grad(value, x, create_graph=True)
            value = slope.square().sum()
        return {"slope": slope.detach()}

    assert_close(third(ops), third(reference), 1e-12)  # products of some ten numbers, each off by 1e-16


def test_strided_inputs():
    _, graph = GRAPHS["batch"]
    x = torch.randn(58, 5)
    per_atom = torch.randn(20, 5)
    plain = ops.segment_sum(x, graph.out_ptr, graph.out_edge)
    assert torch.equal(ops.segment_sum(strided(x), graph.out_ptr, graph.out_edge), plain)
    assert torch.equal(ops.segment_sum(x.T.contiguous().T, graph.out_ptr, graph.out_edge), plain)
    assert torch.equal(ops.segment_sum(x, strided(graph.out_ptr), strided(graph.out_edge)), plain)
    gathered = ops.gather(strided(per_atom), strided(graph.edge_index[1]), strided(graph.in_ptr))
    assert torch.equal(gathered, per_atom[graph.edge_index[1]])
    leaf = x.clone().requires_grad_()
    strided(ops.segment_sum(leaf, graph.in_ptr)).sum().backward()
    assert (leaf.grad == 1).all()


# --- the CUDA kernels, run on the CPU ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("channels", [1, 20, 64, 70])
@pytest.mark.parametrize("name", ALL_GRAPHS)
def test_cuda_sums_over_receivers_and_senders(cuda_operators, name, channels, dtype):
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
def test_cuda_gather(cuda_operators, name, channels, dtype):
    _, graph = ALL_GRAPHS[name]
    x = torch.randn(len(graph.in_ptr) - 1, channels).to(dtype)
    senders, receivers = graph.edge_index
    for index, ptr, perm in ((receivers, graph.in_ptr, None), (senders, graph.out_ptr, graph.out_edge)):
        assert torch.equal(cuda_operators.gather(x, index, ptr, perm), x[index])


@pytest.mark.parametrize("name", ["batch", "star", "no edges"])
def test_cuda_rows_of_the_padding(cuda_operators, name):
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
    found = cuda_operators.gather(torch.randn(len(graph.in_ptr) - 1, 8), receivers, graph.in_ptr)
    assert found.isfinite().all() and (found[edges:] == 0).all()


def test_cuda_gather_where_there_is_no_row(cuda_operators):
    x = torch.randn(3, 8)
    found = cuda_operators.gather(x, torch.tensor([2, -1, 0]), torch.tensor([0, 1, 1, 2]), torch.tensor([2, 0, 1]))
    assert torch.equal(found, torch.stack([x[2], torch.zeros(8), x[0]]))


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-14), (torch.float32, 1e-7)])  # rounded once
@pytest.mark.parametrize("chunks, size", [(0, 5), (1, 1), (3, 40), (16, 32), (256, 33), (250, 100), (5, 0)])
def test_sum_chunks(cuda_operators, chunks, size, dtype, tolerance):
    parts = torch.randn(chunks, size).to(dtype)
    expected = parts.double().sum(0)
    torch.testing.assert_close(
        cuda_operators.compiled.sum_chunks(parts, size, 0, 0, 0)[0].double(), expected, rtol=tolerance, atol=tolerance
    )


def test_sums_into_several_arrays(cuda_operators):
    parts = torch.randn(37, 70, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = cuda_operators.compiled.sum_chunks(parts, 5, 0, 33, 32)
    # sums of 37 float64 numbers
    torch.testing.assert_close(torch.cat(found), parts.sum(0), rtol=1e-13, atol=1e-13)
    assert [len(part) for part in found] == [5, 0, 33, 32]


PTR, INDEX = torch.tensor([0, 2, 2, 5]), torch.tensor([3, 1, 0, 4, 2])


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(x=torch.ones(5)), r"x: expected shape \[any, any\], got \[5\]"),
        (dict(ptr=PTR.int()), "ptr: expected dtype Long, got Int"),
        (dict(ptr=PTR[:0]), "ptr: expected at least one offset"),
        (dict(ptr=PTR.flip(0)), "ptr: expected ascending offsets from 0 to at most 5"),
        (dict(ptr=other(PTR, 3, 6)), "ptr: expected ascending offsets from 0 to at most 5"),
        (dict(ptr=other(PTR, 0, -1)), "ptr: expected ascending offsets from 0 to at most 5"),
        (dict(index=INDEX.int()), "index: expected dtype Long, got Int"),
        (dict(index=INDEX[:4]), "ptr: expected ascending offsets from 0 to at most 4|index"),
        (dict(index=other(INDEX, 1, 5)), "index: expected values in 0 .. 4, got 5 at position 1"),
        (dict(index=other(INDEX, 1, -1)), "index: expected values in 0 .. 4, got -1 at position 1"),
        (dict(segment=INDEX.int()), "segment: expected dtype Long, got Int"),
        (dict(segment=INDEX[:4]), r"segment: expected shape \[5\], got \[4\]"),
    ],
)
def test_errors_of_sums(changes, message):
    raises(message, ops.segment_sum, dict(x=torch.ones(5, 2), ptr=PTR, index=INDEX, segment=None), changes)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(x=torch.ones(3)), r"x: expected shape \[any, any\], got \[3\]"),
        (dict(index=torch.zeros(5)), "index: expected dtype Long, got Float"),
        (dict(index=torch.tensor([0, 0, 2, 3, 2])), "index: expected values in -1 .. 2, got 3 at position 3"),
        (dict(index=torch.tensor([0, 0, 2, -2, 2])), "index: expected values in -1 .. 2, got -2 at position 3"),
        (dict(ptr=PTR[:-1]), r"ptr: expected shape \[4\], got \[3\]"),
        (dict(perm=INDEX[:-1]), r"perm: expected shape \[5\], got \[4\]"),
    ],
)
def test_errors_of_gather(changes, message):
    given = dict(x=torch.ones(3, 2), index=torch.tensor([0, 0, 2, 2, 2]), ptr=PTR, perm=None)
    raises(message, ops.gather, given, changes)


def test_the_reference_by_hand():
    x = torch.arange(8, dtype=torch.float64).reshape(4, 2).requires_grad_()
    ptr, index = torch.tensor([0, 2, 2, 4]), torch.tensor([3, 0, 1, 3])
    assert reference.segment_sum(x, ptr).tolist() == [[2, 4], [0, 0], [10, 12]]
    assert reference.segment_sum(x, ptr, index).tolist() == [[6, 8], [0, 0], [8, 10]]
    assert reference.gather(x, index, ptr).tolist() == x[index].tolist()
    (gradient,) = torch.autograd.grad(reference.segment_sum(x, ptr, index).sum(), x)
    assert gradient[:, 0].tolist() == [1, 1, 0, 2]


def test_expanded_cotangent():
    """The gradient of a sum is one number that stands for many."""
    _, graph = GRAPHS["not symmetric"]
    x = torch.randn(graph.edge_index.shape[1], 7, requires_grad=True)
    ops.segment_sum(x, graph.in_ptr).sum().backward()
    assert (x.grad == 1).all()
