"""Lengths of the edges. What depends on them alone is computed once for an edge and the opposite one."""

from typing import NamedTuple

import torch
from torch import Tensor

from .framework import System
from .graph import Graph
from .inputs import may_read_values


class Lengths(NamedTuple):
    """The M lengths of E edges: one for an edge and its opposite one."""

    distance: Tensor  # [M, 1], in the dtype of the model
    number: Tensor | None  # [E] which of them an edge has; None: M = E, edge k has number k
    ptr: Tensor | None  # [M+1] the edges with number m are perm[ptr[m]:ptr[m+1]]
    perm: Tensor | None  # [E]

    def to_edges(self, x: Tensor, system: System) -> Tensor:
        """Rows of x [M, C] at all edges: [E, C]."""
        return x if self.number is None else system.operators.gather(x, self.number, self.ptr, self.perm)


def edge_lengths(system: System) -> Lengths:
    """The lengths of the edges, differentiable.

    There are E where Python may not learn the smaller number, or need not: while compiling or tracing, in a graph with
    padding, and on a GPU, where waiting for it costs more than it saves.
    """
    graph, distance = system.graph, system.distance.to(system.dtype)[:, None]
    if not graph.rev.is_cpu or graph.present is not None or not may_read_values(graph.rev):
        return Lengths(distance, None, None, None)
    first, *numbers = _pairs(graph)
    return Lengths(distance[first], *numbers)


def _pairs(graph: Graph) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One edge of every pair [M], and number, ptr and perm of `Lengths`."""
    rev = graph.rev
    is_first = (rev < 0) | (torch.arange(len(rev)) < rev)
    first = is_first.nonzero()[:, 0]
    number = is_first.cumsum(0) - 1
    number = torch.where(is_first, number, number[rev])
    both = torch.stack([first, rev[first]], dim=1)
    exists = both >= 0
    ptr = torch.zeros(len(first) + 1, dtype=torch.int64)
    torch.cumsum(exists.sum(1), 0, out=ptr[1:])
    return first, number, ptr, both[exists]
