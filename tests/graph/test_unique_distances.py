"""One distance for an edge and the opposite one."""

import pytest
import torch
from molecules import rattled_batch
from operator_graphs import GRAPHS

from spherenet_fast import ops
from spherenet_fast.graph import radius_graph
from spherenet_fast.graph.padding import Capacity, padded_graph
from spherenet_fast.graph.unique_distances import unique_distances
from spherenet_fast.ops import reference


@pytest.mark.parametrize("operators", [ops, reference])
@pytest.mark.parametrize("name", GRAPHS)
def test_every_edge_has_its_distance(name, operators):
    vec, graph = GRAPHS[name]
    distance = vec.norm(dim=1)
    unique = unique_distances(graph, distance)
    assert len(unique.distance) == len(vec) - int((graph.rev >= 0).sum()) // 2
    # the vectors of an edge and of its reverse are made by different sums
    torch.testing.assert_close(unique.to_edges(unique.distance, operators)[:, 0], distance, rtol=1e-14, atol=0)


def test_both_directions_move_a_distance():
    vec, graph = GRAPHS["not symmetric"]
    leaf = vec.clone().requires_grad_()
    unique = unique_distances(graph, leaf.norm(dim=1))
    (slope,) = torch.autograd.grad(unique.to_edges(unique.distance.square(), ops).sum(), leaf)
    uses = torch.bincount(unique.inverse).double()  # 2 where an edge has an opposite one
    assert set(uses.tolist()) == {1.0, 2.0}
    torch.testing.assert_close(slope[slope.any(dim=1)], 2 * uses[:, None] * vec[slope.any(dim=1)])


def test_graphs_of_fixed_size_keep_every_edge():
    data = rattled_batch((5, 4))
    graph = radius_graph(data.pos, data.batch, 5.0)
    padded = padded_graph(graph, Capacity(3, 12, 50, 400))
    unique = unique_distances(padded, torch.ones(50).double())
    assert unique.inverse is None and len(unique.distance) == 50
