"""The graph of a batch of structures: edges by receiver, by sender, their reverses, and the tiles of triplets."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import _library
from ..ops import gather, linear
from .checks import check_cell, check_dense, check_edges


class Graph(NamedTuple):
    """Edges j -> i between atoms, sorted by receiver, then sender, then shift; in(j), out(j): edges into, out of j.

    A triplet is a pair (q, e) of an edge q in in(j) and an edge e in out(j) with q != rev[e]. The pairs of one center
    j form a dense tile: pair (q, e) has the number
    triplet_ptr[j] + (q - in_ptr[j]) * |out(j)| + (position of e in out(j)).

    All tensors are on the device of the positions, all indices int64.

    Operators and models trust the arrays to belong together: wrong numbers within range give wrong results in silence.
    With SPHERENET_FAST_CHECKS=1 in the environment, operators compare those that they take with each other, and models
    all of them with the edges, and the edges with the molecules and the cutoff.

    A graph may have room for more than it holds: rows of the arrays over edges past in_ptr[N] are padding, edges of no
    atom, and num_triplets is at least triplet_ptr[N]. The operators give such edges zeros and take none of their
    derivatives.
    """

    edge_index: Tensor  # [2,E] row 0 sender j, row 1 receiver i; -1 in padding
    shift: Tensor | None  # [E,3] periodic image, vec = pos[i] - pos[j] + shift @ cell; None: no periodic direction
    in_ptr: Tensor  # [N+1] in(j) = edges in_ptr[j]:in_ptr[j+1]
    out_ptr: Tensor  # [N+1]
    out_edge: Tensor  # [E] out(j) = out_edge[out_ptr[j]:out_ptr[j+1]], ascending
    rev: Tensor  # [E] the opposite edge (same two atoms, opposite image), or -1
    triplet_ptr: Tensor  # [N+1] cumulative |in(j)| * |out(j)|, the pairs that are no triplets included
    num_triplets: int  # triplet_ptr[-1], or the room for them
    present: Tensor | None = None  # [E] bool, False in padding; None: there is none


def build_graph(edge_index: Tensor, num_nodes: int, shift: Tensor | None = None) -> Graph:
    """Graph of given edges, which need not be symmetric: an edge without an opposite one has rev = -1.

    Args:
        edge_index: [2,E] int64, row 0 senders, row 1 receivers, sorted by receiver.
        num_nodes: N.
        shift: [E,3] int64, the periodic image of each edge, or None for open systems.

    Raises:
        TypeError: an argument has the wrong type or dtype.
        ValueError: wrong shape or device; atoms out of range; receivers not sorted; an edge from an atom to itself
            (to its own image is an edge); an edge that occurs twice.
    """
    check_edges(edge_index, num_nodes, shift)
    edge_index = edge_index.contiguous()
    shift = None if shift is None else shift.contiguous()
    rev = None if _strictly_sorted(edge_index, shift) else _searched(edge_index, shift)
    return assemble(edge_index, shift, int(num_nodes), rev)


def edge_vectors(pos: Tensor, graph: Graph, batch: Tensor | None = None, cell: Tensor | None = None) -> Tensor:
    """Vectors from sender to receiver, pos[i] - pos[j] + shift @ cell: [E,3], differentiable in `pos` and `cell`.

    Args:
        pos: [N,3] floating point, Å.
        graph: the edges.
        batch: [N] int64, the structure of each atom. None: one structure. Only used if graph.shift is not None.
        cell: [B,3,3], or [3,3] for the same cell everywhere, dtype of `pos`, Å. Only used if graph.shift is not None.

    Raises:
        TypeError, ValueError: dtype, device or shape do not fit each other; periodic edges without a cell.
    """
    check_dense("pos", pos)
    num_nodes = len(graph.in_ptr) - 1
    if pos.shape != (num_nodes, 3):
        raise ValueError(f"pos: expected shape [{num_nodes},3] as in the graph, got {list(pos.shape)}")
    vec = _per_edge(pos, graph, 1) - _per_edge(pos, graph, 0)
    if graph.shift is not None:
        vec = vec + _moved(graph.shift, pos, graph, batch, cell)
    # Padding joins no atoms. Any vector does that has a length and a direction, whose derivatives are then numbers.
    return vec if graph.present is None else torch.where(graph.present[:, None], vec, 1.0)


def _moved(shift: Tensor, pos: Tensor, graph: Graph, batch: Tensor | None, cell: Tensor | None) -> Tensor:
    """shift @ cell of every edge: [E,3]. shift: the graph's, [E,3]."""
    if cell is None:
        raise ValueError("cell: expected [B,3,3] or [3,3] because the graph has periodic shifts, got None")
    check_cell(cell, pos)
    shift = shift.to(pos.dtype)
    if cell.dim() == 2 or len(cell) == 1:
        return linear(shift, cell.reshape(3, 3).t())
    if batch is None:
        raise ValueError(f"batch: expected [{len(pos)}] because cell holds {len(cell)} structures, got None")
    # Atom by atom and then edge by edge, so that a derivative by the cells is summed in a fixed order.
    box = _per_edge(gather_rows(cell.reshape(-1, 9), batch, first_atoms(batch, len(cell)), None), graph, 1)
    return (shift[:, :, None] * box.reshape(-1, 3, 3)).sum(1)


def _per_edge(x: Tensor, graph: Graph, row: int) -> Tensor:
    """Rows of x [N, C] at the senders (row 0) or receivers (row 1) of all edges: [E, C]."""
    ptr, perm = (graph.out_ptr, graph.out_edge) if row == 0 else (graph.in_ptr, None)
    return gather_rows(x, graph.edge_index[row], ptr, perm)


def gather_rows(x: Tensor, index: Tensor, ptr: Tensor, perm: Tensor | None) -> Tensor:
    """`ops.gather`, wherever there is a kernel for it."""
    if x.is_cpu or x.is_meta or (x.is_cuda and _library.has_cuda_kernels()):
        return gather(x, index, ptr, perm)
    return x.index_select(0, index)


def assemble(edge_index: Tensor, shift: Tensor | None, num_nodes: int, rev: Tensor | None = None) -> Graph:
    """Graph of edges known to be in range and sorted by receiver, without duplicates."""
    sender, receiver = edge_index
    in_ptr, out_ptr = pointer_of(receiver, num_nodes), pointer_of(sender, num_nodes)
    out_edge = _stable_order(sender, num_nodes)
    triplet_ptr = torch.zeros_like(in_ptr)
    torch.cumsum(in_ptr.diff() * out_ptr.diff(), 0, out=triplet_ptr[1:])
    if rev is None:
        rev = _mirrored(edge_index, shift, out_edge)
    if rev is None:
        rev = _searched(edge_index, shift)
    return Graph(edge_index, shift, in_ptr, out_ptr, out_edge, rev, triplet_ptr, int(triplet_ptr[-1]))


def first_atoms(batch: Tensor, num_structures: int) -> Tensor:
    """[B+1] where the atoms of each of the structures begin. batch [N] int64, ascending."""
    return torch.searchsorted(batch, torch.arange(num_structures + 1, device=batch.device))


def pointer_of(index: Tensor, size: int) -> Tensor:
    """[size+1] where each value of index [E] begins when sorted."""
    pointer = index.new_zeros(size + 1)
    torch.cumsum(torch.bincount(index, minlength=size), 0, out=pointer[1:])
    return pointer


def _stable_order(index: Tensor, size: int) -> Tensor:
    """Permutation [E] that sorts index [E], values below size, and keeps the order of equal values."""
    if index.is_cpu and size <= 2**16:  # NumPy sorts 16-bit keys by radix, ten times faster than torch.argsort
        return torch.from_numpy(np.argsort(index.numpy().astype(np.uint16), kind="stable"))
    return torch.argsort(index, stable=True)


def _columns(edge_index: Tensor, shift: Tensor | None) -> list[Tensor]:
    """Receiver, sender and shift, the columns by which edges are sorted."""
    return [edge_index[1], edge_index[0]] + ([] if shift is None else list(shift.unbind(1)))


def _strictly_sorted(edge_index: Tensor, shift: Tensor | None) -> bool:
    """Whether every edge comes after the one before it by receiver, then sender, then shift."""
    equal = torch.ones_like(edge_index[0, 1:], dtype=torch.bool)
    after = ~equal
    for column in _columns(edge_index, shift):
        after |= equal & (column[1:] > column[:-1])
        equal &= column[1:] == column[:-1]
    return bool(after.all())


def _mirrored(edge_index: Tensor, shift: Tensor | None, out_edge: Tensor) -> Tensor | None:
    """Reverse edges [E] of a symmetric list sorted by receiver, sender and shift; None if the list is not like that.

    Exchanging the ends of all edges maps such a list onto itself. So the k-th edge by sender, out_edge[k], joins the
    atoms of edge k the other way round. The images of one pair come in opposite orders: -shift falls as shift rises.
    """
    rev = out_edge
    if shift is not None:
        position = torch.arange(len(out_edge), device=out_edge.device)
        new_pair = torch.ones_like(out_edge, dtype=torch.bool)
        new_pair[1:] = (edge_index[:, 1:] != edge_index[:, :-1]).any(0)
        first = new_pair.nonzero()[:, 0]
        last = torch.cat([first[1:], position.new_tensor([len(position)])]) - 1
        pair = new_pair.cumsum(0) - 1
        rev = out_edge[(first + last)[pair] - position]
    opposite = torch.equal(edge_index[0, rev], edge_index[1]) and torch.equal(edge_index[1, rev], edge_index[0])
    return rev if opposite and (shift is None or torch.equal(shift[rev], -shift)) else None


def _searched(edge_index: Tensor, shift: Tensor | None) -> Tensor:
    """Reverse edges [E] of any list, -1 where there is none.

    Edges and reversed edges are ranked together, column by column, so that no product of atom numbers and images is
    formed that could overflow: an edge and a reversed edge are the same if their ranks are.

    Raises:
        ValueError: an edge occurs twice.
    """
    rank, reversed_rank = ranks(edge_index, shift)
    twice = (torch.bincount(rank) > 1).nonzero()[:, 0]
    if len(twice):
        first, second = (rank == twice[0]).nonzero()[:2, 0].tolist()
        raise ValueError(f"edge_index: expected every edge once, got the same edge at {first} and {second}")
    return opposite(rank, reversed_rank)


def ranks(edge_index: Tensor, shift: Tensor | None) -> tuple[Tensor, Tensor]:
    """Numbers of edges, [E], and of the same edges reversed, [E]: equal where these are.

    They rise by receiver, then sender, then shift. edge_index [2,E]; shift: None or [E, any number of columns].
    """
    num_edges = edge_index.shape[1]
    both = torch.cat([edge_index, edge_index.flip(0)], 1)
    columns = _columns(both, None if shift is None else torch.cat([shift, -shift]))
    order = torch.arange(2 * num_edges, device=edge_index.device)
    for column in reversed(columns):
        order = order[torch.argsort(column[order], stable=True)]
    new = torch.zeros_like(order, dtype=torch.bool)
    for column in columns:
        new[1:] |= column[order].diff() != 0
    rank = torch.empty_like(order)
    rank[order] = new.cumsum(0)
    return rank[:num_edges], rank[num_edges:]


def opposite(rank: Tensor, reversed_rank: Tensor) -> Tensor:
    """The opposite of every edge [E], -1 where there is none, of what `ranks` returns."""
    edge_of_rank = rank.new_full((2 * rank.shape[0],), -1)
    edge_of_rank[rank] = torch.arange(rank.shape[0], device=rank.device)
    return edge_of_rank[reversed_rank]
