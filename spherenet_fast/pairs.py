"""Edges that have their length in common: what depends on the length alone is computed once for both directions."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .graph import Graph
from .models.inputs import may_read_values


class Pairs(NamedTuple):
    """The M sets of an edge and its opposite one, or of an edge that has none."""

    edge: Tensor  # [M] one edge of each, ascending
    number: Tensor  # [E] to which every edge belongs
    ptr: Tensor  # [M+1] the edges of set m are perm[ptr[m]:ptr[m+1]]
    perm: Tensor  # [E]

    def to_edges(self, x: Tensor, operators: Any) -> Tensor:
        """Rows of x [M, C] at all edges: [E, C]."""
        return operators.gather(x, self.number, self.ptr, self.perm)


def paired_edges(graph: Graph) -> Pairs | None:
    """The pairs of a graph; None where Python may not learn their number M, or need not: on a GPU, where waiting for
    it costs more than it saves, in a graph with padding, while compiling or tracing."""
    if not graph.rev.is_cpu or graph.present is not None or not may_read_values(graph.rev):
        return None
    rev = graph.rev
    first = (rev < 0) | (torch.arange(len(rev)) < rev)
    edge = first.nonzero()[:, 0]
    number = first.cumsum(0) - 1
    number = torch.where(first, number, number[rev])
    members = torch.stack([edge, rev[edge]], dim=1)
    exists = members >= 0
    ptr = torch.zeros(len(edge) + 1, dtype=torch.int64)
    torch.cumsum(exists.sum(1), 0, out=ptr[1:])
    return Pairs(edge, number, ptr, members[exists])
