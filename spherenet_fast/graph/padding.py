"""Batches and graphs of fixed size: room for a capacity, filled up with atoms and edges that nothing depends on.

Padding atoms are hydrogens far from each other, in one molecule more, at the end; padding edges belong to no atom.
Energies, forces and gradients of what is present are those of the batch alone.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..ops import neighbor_edges, neighbor_pointers
from .graph import Graph
from .radius import radius_graph


class CapacityError(ValueError):
    """More came than there is room for; the message names the capacity and what came."""


class Capacity(NamedTuple):
    """The sizes that a step of fixed size has room for. `triplets` are those of `Graph.num_triplets`."""

    graphs: int
    atoms: int
    edges: int
    triplets: int

    @classmethod
    def of(cls, batches: Iterable[Any], cutoff: float, spare: float = 0.1) -> "Capacity":
        """The largest sizes among some batches, and a share of them more: enough for all that are alike.

        batches: each with pos, batch, and cell and pbc if it is periodic, as a model takes them.
        """
        sizes = []
        for data in batches:
            graph = radius_graph(data.pos, data.batch, cutoff, getattr(data, "cell", None), getattr(data, "pbc", None))
            graphs = 1 if data.batch is None else int(data.batch.max()) + 1 if len(data.batch) else 0
            sizes.append((graphs, len(data.pos), len(graph.rev), graph.num_triplets))
        if not sizes:
            raise ValueError("batches: expected at least one, got none")
        return cls(*(math.ceil(max(column) * (1 + spare)) for column in zip(*sizes, strict=True)))

    def check(self, **sizes: int) -> None:
        """Raise CapacityError if one of the sizes, by name, is larger than the capacity."""
        for name, size in sizes.items():
            if size > getattr(self, name):
                raise CapacityError(f"{name}: expected at most {getattr(self, name)}, the capacity, got {size}")


class PaddedBatch:
    """A batch in arrays of fixed size that are filled again and again, under the names that a model reads.

    Attributes:
        z [N] int64, pos [N, 3], batch [N] int64, cell [G+1, 3, 3] or None: N = capacity.atoms, G = capacity.graphs.
        num_graphs: G + 1; the last one holds the padding atoms, and those after the graphs that are present are empty.
        atom_mask [N] bool, graph_mask [G] bool: what is present.
        One more for each label, [N, ...] or [G, ...], 0 in padding.

    Args:
        capacity: the sizes.
        cutoff: of the model.
        like: a tensor of the dtype and device that pos is to have.
        cell: whether there are cells.
        atom_labels, graph_labels: name -> an example with a row for every atom, or for every graph.
    """

    def __init__(
        self,
        capacity: Capacity,
        cutoff: float,
        like: Tensor,
        cell: bool = False,
        atom_labels: dict[str, Tensor] | None = None,
        graph_labels: dict[str, Tensor] | None = None,
    ):
        self.capacity = capacity
        num_atoms, self.num_graphs = capacity.atoms, capacity.graphs + 1
        atoms: dict[str, Any] = dict(dtype=torch.int64, device=like.device)
        self.z = torch.ones(num_atoms, **atoms)
        self.batch = torch.full((num_atoms,), capacity.graphs, **atoms)
        # each padding atom has a place of its own, where no other one is its neighbor
        self._apart = like.new_zeros(num_atoms, 3)
        self._apart[:, 0] = 2 * cutoff * torch.arange(num_atoms, device=like.device)
        self.pos = self._apart.clone()
        self._no_cell = torch.eye(3, dtype=like.dtype, device=like.device)
        self.cell = self._no_cell.repeat(self.num_graphs, 1, 1) if cell else None
        self.atom_mask = torch.zeros(num_atoms, dtype=torch.bool, device=like.device)
        self.graph_mask = torch.zeros(capacity.graphs, dtype=torch.bool, device=like.device)
        self.labels, self.atom_labels = [], tuple(atom_labels or ())
        for rows, examples in ((num_atoms, atom_labels), (capacity.graphs, graph_labels)):
            for name, example in (examples or {}).items():
                self.labels.append(name)
                setattr(self, name, torch.zeros(rows, *example.shape[1:], dtype=example.dtype, device=like.device))

    def fill(
        self, z: Tensor, pos: Tensor, batch: Tensor, num_graphs: int, cell: Tensor | None = None,
        labels: dict[str, Tensor] | None = None,
    ) -> None:  # fmt: skip
        """Put in one batch, its shapes and values as a model takes them, with the labels that there is room for.

        Raises CapacityError, or ValueError if there are other labels, or a cell where there was none before.
        """
        labels = labels or {}
        self.capacity.check(graphs=num_graphs, atoms=len(z))
        expected, found = [*self.labels, *["cell"] * (self.cell is not None)], [*labels, *["cell"] * (cell is not None)]
        if set(expected) != set(found):
            raise ValueError(f"data: expected {expected or 'no labels, no cell'} as in the first batch, got {found}")
        _fill(self.z, z, 1)
        _fill(self.pos, pos.detach(), self._apart[len(pos) :])
        _fill(self.batch, batch, self.capacity.graphs)
        _fill(self.atom_mask, None, False, len(z))
        _fill(self.graph_mask, None, False, num_graphs)
        if self.cell is not None and cell is not None:
            _fill(self.cell, cell.detach().expand(num_graphs, 3, 3), self._no_cell)
        for name, value in labels.items():
            room, rows = getattr(self, name), len(z) if name in self.atom_labels else num_graphs
            if value.shape != (rows, *room.shape[1:]):
                raise ValueError(f"data.{name}: expected shape {[rows, *room.shape[1:]]}, got {list(value.shape)}")
            _fill(room, value, 0)


def _fill(room: Tensor, rows: Tensor | None, rest: Any, count: int | None = None) -> None:
    """rows, or `count` times True, and then `rest`."""
    count = count if rows is None else len(rows)
    room[:count] = True if rows is None else rows
    room[count:] = rest


def fixed_radius_graph(pos: Tensor, batch: Tensor | None, cutoff: float, capacity: Capacity) -> tuple[Graph, Tensor]:
    """The neighbors in molecules without periodic images, in arrays of fixed size: nothing waits for a GPU.

    pos [N, 3], batch [N] or None: as in `radius_graph`.
    Returns the graph, without any edge if there is more than the capacity or anything wrong with pos and batch, and
    status [3] of `ops.neighbor_pointers`, which tells.
    """
    in_ptr, triplet_ptr, status = neighbor_pointers(pos, batch, cutoff, capacity.edges, capacity.triplets)
    edge_index, out_edge, rev = neighbor_edges(pos, batch, in_ptr, cutoff, capacity.edges)
    graph = Graph(edge_index, None, in_ptr, in_ptr, out_edge, rev, triplet_ptr, capacity.triplets, edge_index[0] >= 0)
    return graph, status


def padded_graph(graph: Graph, capacity: Capacity) -> Graph:
    """The graph with room for a capacity. Raises CapacityError if it is larger."""
    num_atoms, num_edges = len(graph.in_ptr) - 1, len(graph.rev)
    capacity.check(atoms=num_atoms, edges=num_edges, triplets=graph.num_triplets)
    more_atoms, more_edges = capacity.atoms - num_atoms, capacity.edges - num_edges

    def pointer(ptr: Tensor) -> Tensor:
        return torch.cat([ptr, ptr[-1:].expand(more_atoms)])

    def rows(values: Tensor, fill: int) -> Tensor:
        return torch.nn.functional.pad(values, (0, more_edges), value=fill)

    present = torch.ones_like(graph.rev, dtype=torch.bool) if graph.present is None else graph.present
    own = torch.arange(num_edges, capacity.edges, device=graph.rev.device)
    return Graph(
        edge_index=rows(graph.edge_index, -1),
        shift=None if graph.shift is None else rows(graph.shift.T, 0).T.contiguous(),
        in_ptr=pointer(graph.in_ptr),
        out_ptr=pointer(graph.out_ptr),
        out_edge=torch.cat([graph.out_edge, own]),
        rev=rows(graph.rev, -1),
        triplet_ptr=pointer(graph.triplet_ptr),
        num_triplets=capacity.triplets,
        present=rows(present, False),
    )
