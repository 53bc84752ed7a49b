"""One length for an edge and the opposite one."""

import pytest
import torch
from molecules import rattled_batch
from operator_cases import GRAPHS

from spherenet_fast import ops
from spherenet_fast.ops import reference
from spherenet_fast.framework import System
from spherenet_fast.graph import radius_graph
from spherenet_fast.lengths import edge_lengths
from spherenet_fast.padding import Capacity, padded_graph


def system(vec, graph, operators=ops):
    return System(None, None, None, graph, vec, vec.norm(dim=1), vec.dtype, operators)


@pytest.mark.parametrize("operators", [ops, reference])
@pytest.mark.parametrize("name", GRAPHS)
def test_every_edge_has_its_length(name, operators):
    vec, graph = GRAPHS[name]
    here = system(vec, graph, operators)
    lengths = edge_lengths(here)
    assert len(lengths.distance) == len(vec) - int((graph.rev >= 0).sum()) // 2
    # the vectors of an edge and of its reverse are made by different sums
    torch.testing.assert_close(lengths.to_edges(lengths.distance, here)[:, 0], here.distance, rtol=1e-14, atol=0)


def test_both_directions_move_a_length():
    vec, graph = GRAPHS["not symmetric"]
    leaf = vec.clone().requires_grad_()
    here = system(leaf, graph)
    lengths = edge_lengths(here)
    (slope,) = torch.autograd.grad(lengths.to_edges(lengths.distance.square(), here).sum(), leaf)
    uses = torch.bincount(lengths.number).double()  # 2 where an edge has an opposite one
    assert set(uses.tolist()) == {1.0, 2.0}
    torch.testing.assert_close(slope[slope.any(dim=1)], 2 * uses[:, None] * vec[slope.any(dim=1)])


def test_graphs_of_fixed_size_keep_every_edge():
    data = rattled_batch((5, 4))
    graph = radius_graph(data.pos, data.batch, 5.0)
    padded = padded_graph(graph, Capacity(3, 12, 50, 400))
    lengths = edge_lengths(system(torch.ones(50, 3).double(), padded))
    assert lengths.number is None and len(lengths.distance) == 50
