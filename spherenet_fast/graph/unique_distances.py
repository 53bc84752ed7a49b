"""Distances along the edges. What depends on them alone is computed once for an edge and the opposite one."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .checks import may_read_values
from .graph import Graph


class UniqueDistances(NamedTuple):
    """The M distances of E edges: one for an edge and its opposite one."""

    distance: Tensor  # [M, 1]
    inverse: Tensor | None  # [E] which of them an edge has; None: M = E, edge k has distance k
    ptr: Tensor | None  # [M+1] the edges with distance m are perm[ptr[m]:ptr[m+1]]
    perm: Tensor | None  # [E]

    def to_edges(self, x: Tensor, operators: Any) -> Tensor:
        """Rows of x [M, C] at all edges: [E, C]. operators: `spherenet_fast.ops` or the readable ones."""
        return x if self.inverse is None else operators.gather(x, self.inverse, self.ptr, self.perm)


def unique_distances(graph: Graph, distance: Tensor) -> UniqueDistances:
    """The distances along the edges, [E] in any dtype, once for an edge and the opposite one; differentiable.

    There are E where Python may not learn the smaller number, or need not: while compiling or tracing, in a graph with
    padding, and on a GPU, where waiting for it costs more than it saves.
    """
    distance = distance[:, None]
    if not graph.rev.is_cpu or graph.present is not None or not may_read_values(graph.rev):
        return UniqueDistances(distance, None, None, None)
    first, *indices = _pairs(graph)
    return UniqueDistances(distance[first], *indices)


def _pairs(graph: Graph) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One edge of every pair [M], and inverse, ptr and perm of `UniqueDistances`."""
    rev = graph.rev
    is_first = (rev < 0) | (torch.arange(len(rev)) < rev)
    first = is_first.nonzero()[:, 0]
    inverse = is_first.cumsum(0) - 1
    inverse = torch.where(is_first, inverse, inverse[rev])
    both = torch.stack([first, rev[first]], dim=1)
    exists = both >= 0
    ptr = torch.zeros(len(first) + 1, dtype=torch.int64)
    torch.cumsum(exists.sum(1), 0, out=ptr[1:])
    return first, inverse, ptr, both[exists]
