"""The neighbors in molecules without periodic images, in two steps without host synchronization in between."""

import torch
from torch import Tensor

from ._register import compiled, fake


def neighbor_pointers(
    pos: Tensor, batch: Tensor | None, cutoff: float, edge_capacity: int = -1, triplet_capacity: int = -1
) -> tuple[Tensor, Tensor, Tensor]:
    """First step of the search for neighbors in molecules without periodic images; `neighbor_edges` is the second.

    Every two atoms of one molecule that are closer than the cutoff are neighbors, judged in float64.

    pos [N, 3]; batch [N] int64, ascending, or None: one molecule; capacities: the most edges and triplets to be stored,
    -1: no limit. Returns in_ptr and triplet_ptr [N+1] of the graph (its out_ptr is in_ptr), and status [3]: the number
    of edges and of triplets found, and of atoms with something wrong: coordinates that are not finite, molecule numbers
    that are negative or fall, another atom at the same place. If more is found than there is room for, or anything is
    wrong, both pointers are 0: a graph without edges. Nothing waits for a GPU.
    """
    return compiled.neighbor_pointers(pos.detach(), batch, float(cutoff), edge_capacity, triplet_capacity)


def neighbor_edges(
    pos: Tensor, batch: Tensor | None, in_ptr: Tensor, cutoff: float, num_edges: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Second step: edge_index [2, E], out_edge [E] and rev [E] of a `Graph` with E = num_edges rows.

    pos, batch, cutoff: as in the first step, which has returned in_ptr. Rows past in_ptr[N] are padding: -1 in
    edge_index and rev, the row's own number in out_edge.
    """
    return compiled.neighbor_edges(pos.detach(), batch, in_ptr, float(cutoff), num_edges)


@fake("neighbor_pointers")
def _(pos, batch, cutoff, edge_capacity, triplet_capacity):
    def index(size):
        return pos.new_empty(size, dtype=torch.int64)

    return index(pos.shape[0] + 1), index(pos.shape[0] + 1), index(3)


@fake("neighbor_edges")
def _(pos, batch, in_ptr, cutoff, num_edges):
    return tuple(pos.new_empty(shape, dtype=torch.int64) for shape in ((2, num_edges), (num_edges,), (num_edges,)))
