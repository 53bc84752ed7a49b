"""The search for neighbors: `radius_graph`."""

import warnings

import torch
from torch import Tensor

from .. import _library
from ..ops import neighbor_edges, neighbor_pointers
from . import periodic
from .checks import check_batch, check_cutoff, check_forms, check_max_num_neighbors, check_periodicity, check_pos
from .graph import Graph, assemble, edge_vectors, pointer_of

_truncation_reported = False


def radius_graph(
    pos: Tensor,
    batch: Tensor | None,
    cutoff: float,
    cell: Tensor | None = None,
    pbc: Tensor | None = None,
    max_num_neighbors: int | None = None,
) -> Graph:
    """Connect every two atoms of a structure that are closer than the cutoff, in both directions.

    The neighbors are found in float64 whatever the dtype of `pos`. No derivative flows through the search: see
    `edge_vectors`.

    Args:
        pos: [N,3] float32 or float64, Å, anywhere in or out of the cell.
        batch: [N] int64, sorted: the structure of each atom. None: one structure.
        cutoff: Å; pairs at exactly this distance are not connected.
        cell: [B,3,3], or [3,3] for the same cell everywhere, dtype of `pos`, Å, one vector per row.
        pbc: [B,3] or [3] bool, the cell vectors along which a structure repeats. None: all, if there is a cell.
        max_num_neighbors: keep only so many nearest neighbors of each receiver, of equal distances those with the
            lowest sender. The graph is then no longer symmetric (`rev` has entries -1) and the energy jumps as atoms
            move; a warning, once per process, says how many edges were dropped. None: keep all.

    Returns:
        Graph; `shift` is None if no structure repeats.

    Raises:
        TypeError: an argument has the wrong type or dtype.
        ValueError: an argument has the wrong shape, device or value (not finite, unsorted, negative, a cell of zero
            volume, two atoms at the same place).
    """
    check_forms(pos, batch)
    cutoff = check_cutoff(cutoff)
    max_num_neighbors = check_max_num_neighbors(max_num_neighbors)
    if cell is None and pbc is None and max_num_neighbors is None and _takes_kernels(pos, batch):
        found = kernel_graph(pos, batch, cutoff)
        if found is not None:
            return found
    place = check_pos(pos)
    structure, num_structures = check_batch(batch, pos)
    cell, pbc = check_periodicity(cell, pbc, pos, batch, num_structures)
    if cell is None or pbc is None:
        receiver, sender = periodic.open_pairs(place, pointer_of(structure, num_structures), cutoff)
        shift = None
    else:
        atom_ptr = pointer_of(structure, len(cell))
        receiver, sender, shift = periodic.periodic_pairs(place, atom_ptr, cell, pbc, cutoff)
    graph = assemble(torch.stack([sender, receiver]), shift, len(pos))
    if max_num_neighbors is None or (graph.in_ptr.diff() <= max_num_neighbors).all():
        return graph
    distance = edge_vectors(place, graph, structure, cell).norm(dim=1)
    return _truncated(graph, periodic.nearest(receiver, distance, graph.in_ptr, max_num_neighbors), max_num_neighbors)


def _takes_kernels(pos: Tensor, batch: Tensor | None) -> bool:
    """Whether the kernels find the neighbors: on a GPU, unless a molecule is so large that a cell list is faster."""
    if not (pos.is_cuda and _library.has_cuda_kernels()):
        return False
    if len(pos) <= periodic.LARGE_ON_GPU or batch is None:
        return len(pos) <= periodic.LARGE_ON_GPU
    return int(batch.unique_consecutive(return_counts=True)[1].max()) <= periodic.LARGE_ON_GPU


def kernel_graph(pos: Tensor, batch: Tensor | None, cutoff: float) -> Graph | None:
    """`radius_graph` of molecules without periodic images by the compiled operators; None if anything is wrong.

    The number of edges and pairs is all that is read back from a GPU.
    """
    in_ptr, triplet_ptr, status = neighbor_pointers(pos, batch, cutoff)
    num_edges, num_triplets, wrong = status.tolist()
    if wrong:
        return None
    edge_index, out_edge, rev = neighbor_edges(pos, batch, in_ptr, cutoff, num_edges)
    return Graph(edge_index, None, in_ptr, in_ptr, out_edge, rev, triplet_ptr, num_triplets)


def _truncated(graph: Graph, keep: Tensor, max_num_neighbors: int) -> Graph:
    """The graph of the edges in the mask keep [E]; reports the dropped ones."""
    global _truncation_reported
    if not _truncation_reported:
        _truncation_reported = True
        warnings.warn(
            f"max_num_neighbors={max_num_neighbors} dropped {int((~keep).sum())} of {len(keep)} edges; the graph is "
            "no longer symmetric and the energy jumps as atoms move (said once, for the first such graph)",
            stacklevel=3,
        )
    number = (keep.cumsum(0) - 1).masked_fill_(~keep, -1)  # new number of every old edge
    shift = None if graph.shift is None else graph.shift[keep]
    return assemble(graph.edge_index[:, keep], shift, len(graph.in_ptr) - 1, number[graph.rev[keep]])
