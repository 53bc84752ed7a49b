"""The CUDA kernels of the neighbor search, run on the CPU: the very same graphs as those of `radius_graph`."""

import pytest
import torch
from graph_oracles import random_batch

from spherenet_fast import ops
from spherenet_fast.graph import periodic, radius_graph


def assert_equal(found, expected):
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def search(operators, pos, batch, cutoff, room=0):
    """in_ptr, triplet_ptr, edge_index, out_edge, rev, with room for more edges and triplets than there are."""
    _, _, status = operators.neighbor_pointers(pos, batch, cutoff)
    edges, triplets, wrong = status.tolist()
    assert wrong == 0
    in_ptr, triplet_ptr, again = operators.neighbor_pointers(pos, batch, cutoff, edges + room, triplets + room)
    assert torch.equal(again, status)
    return in_ptr, triplet_ptr, *operators.neighbor_edges(pos, batch, in_ptr, cutoff, edges + room)


# molecules of no, one and a few atoms; of a warp's width, one more and one less; more atoms than the scan has threads
SIZES = [[7], [1, 9, 2], [0, 5, 0, 1, 40, 0, 3], [31], [32], [33], [64, 65], [1], [3] * 400, [20] * 55]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", SIZES, ids=lambda sizes: f"{len(sizes)} of {max(sizes)}")
def test_graphs(cuda_operators, sizes, dtype):
    pos, batch = random_batch(sizes, dtype)
    for numbers in (batch, None) if len(pos) < 100 else (batch,):
        graph = radius_graph(pos, numbers, 2.0)
        expected = graph.in_ptr, graph.triplet_ptr, graph.edge_index, graph.out_edge, graph.rev
        assert_equal(search(cuda_operators, pos, numbers, 2.0), expected)
        for room in (0, 5):
            assert_equal(search(cuda_operators, pos, numbers, 2.0, room), search(ops, pos, numbers, 2.0, room))


def test_no_atoms(cuda_operators):
    pos, batch = torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)
    for room in (0, 3):
        assert_equal(search(cuda_operators, pos, batch, 2.0, room), search(ops, pos, batch, 2.0, room))


def test_distances_are_rounded_alike(cuda_operators):
    """Each distance once as the cutoff: no two ways of rounding would agree on all of them."""
    pos = torch.rand(12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for cutoff in periodic._distances(pos[None])[0][tuple(torch.triu_indices(12, 12, 1))].tolist():
        assert_equal(search(cuda_operators, pos, None, cutoff), search(ops, pos, None, cutoff))


def test_too_little_room(cuda_operators):
    pos, batch = random_batch([9, 30])
    edges, triplets, _ = ops.neighbor_pointers(pos, batch, 2.0)[2].tolist()
    for capacities in ((edges - 1, -1), (-1, triplets - 1), (0, 0), (edges, 0)):
        in_ptr, triplet_ptr, status = cuda_operators.neighbor_pointers(pos, batch, 2.0, *capacities)
        assert (in_ptr == 0).all() and (triplet_ptr == 0).all() and status.tolist() == [edges, triplets, 0]
        edge_index, out_edge, rev = cuda_operators.neighbor_edges(pos, batch, in_ptr, 2.0, 4)
        assert (edge_index == -1).all() and (rev == -1).all() and out_edge.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "change",
    [
        dict(pos=torch.full((3, 3), torch.nan)), dict(pos=torch.zeros(3, 3)), dict(batch=torch.tensor([0, 1, 0])),
        dict(batch=torch.tensor([-1, 0, 0])), dict(pos=torch.tensor([[0.0, 0, 0], [1, 0, torch.inf], [2, 0, 0]])),
    ],
)  # fmt: skip
def test_anything_wrong(cuda_operators, change):
    given = dict(pos=torch.eye(3), batch=torch.zeros(3, dtype=torch.int64), cutoff=5.0) | change
    found = cuda_operators.neighbor_pointers(**given)
    assert found[2][2] > 0
    assert_equal(found, ops.neighbor_pointers(**given))


def test_offsets_of_other_positions(cuda_operators):
    """Rows that the first step did not count: as on the CPU, and nothing outside of the arrays."""
    pos = torch.eye(3)
    for offsets in ([0, 0, 0, 0], [0, 5, 5, 6], [0, 1, 2, 9], [0, 0, 0, 9]):
        arguments = pos, None, torch.tensor(offsets), 5.0, 9
        assert_equal(cuda_operators.neighbor_edges(*arguments), ops.neighbor_edges(*arguments))
