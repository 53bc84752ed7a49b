"""segment_sum and gather: each the other's derivative, over edges by receiver and by sender."""

import pytest
import torch
from operator_cases import GRAPHS, assert_close, cast, crowd, derivatives, strided

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
