"""What SPHERENET_FAST_CHECKS=1 asks of a graph that is given to a model; otherwise it is trusted.

A graph of other atoms, or one with wrong numbers within range, gives wrong energies and says nothing.
"""

import os

import torch
from torch import Tensor

from .checks import may_read_values
from .graph import Graph, build_graph, edge_vectors
from .radius import radius_graph


def checks_are_on(like: Tensor) -> bool:
    """Whether graphs are to be checked: asked for in the environment, and values may be read where `like` is."""
    return may_read_values(like) and os.environ.get("SPHERENET_FAST_CHECKS") == "1"


def check_graph(
    graph: Graph,
    pos: Tensor,
    batch: Tensor,
    cutoff: float,
    cell: Tensor | None = None,
    pbc: Tensor | None = None,
    max_num_neighbors: int | None = None,
) -> None:
    """ValueError unless the arrays of the graph belong together, and are those of the neighbors of all atoms.

    The edges must be sorted and distinct, `rev` the opposite ones, the other arrays their indices; every edge must join
    two atoms of one molecule that are closer than the cutoff, and, unless max_num_neighbors or padding says otherwise,
    every two such atoms must have one. Distances at the cutoff are left to rounding.

    pos, batch, cutoff, cell, pbc, max_num_neighbors: as in `radius_graph`; batch [N] is needed.
    """
    _check_arrays(graph)
    sender, receiver = graph.edge_index if graph.present is None else graph.edge_index[:, graph.present]
    strangers = batch[sender] != batch[receiver]
    if strangers.any():
        edge = int(strangers.nonzero()[0])
        raise ValueError(
            f"graph: expected edges within one molecule, got edge {edge} from atom {int(sender[edge])} of molecule "
            f"{int(batch[sender[edge]])} to atom {int(receiver[edge])} of molecule {int(batch[receiver[edge]])}"
        )
    place, box = pos.detach().double(), None if cell is None else cell.detach().double()
    distance = edge_vectors(place, graph, batch, box).norm(dim=1)[: len(sender)]
    # The neighbors may have been found before the positions were rounded to the dtype of the model.
    slack = 1e-6 * cutoff + 8 * torch.finfo(pos.dtype).eps * (float(place.abs().max()) if len(place) else 0.0)
    if len(distance) and distance.max() >= cutoff + slack:
        edge = int(distance.argmax())
        raise ValueError(
            f"graph: expected edges shorter than the cutoff {cutoff}, got {float(distance[edge]):.6g} for edge {edge} "
            f"from atom {int(sender[edge])} to {int(receiver[edge])}; is it the graph of other positions?"
        )
    if max_num_neighbors is not None or graph.present is not None or cutoff <= slack:
        return
    given = int((distance < cutoff - slack).sum())
    found = len(radius_graph(place, batch, cutoff - slack, box, pbc).rev)
    if given != found:
        raise ValueError(
            f"graph: expected all {found} edges shorter than the cutoff {cutoff}, got {given}; is it the graph of "
            "other positions?"
        )


def _check_arrays(graph: Graph) -> None:
    """The arrays of a graph against those that its edges alone lead to."""
    edge_index, shift = graph.edge_index, graph.shift
    num_edges = edge_index.shape[1] if graph.present is None else int(graph.present.sum())
    if graph.present is not None:
        if not graph.present[:num_edges].all():
            raise ValueError("graph.present: expected all edges before the padding, got some after it")
        edge_index, shift = edge_index[:, :num_edges], None if shift is None else shift[:num_edges]
    try:
        expected = build_graph(edge_index, len(graph.in_ptr) - 1, shift)
    except (ValueError, TypeError) as error:
        raise type(error)(f"graph.{error}") from error
    for name in ("in_ptr", "out_ptr", "out_edge", "rev", "triplet_ptr"):
        found, right = getattr(graph, name), getattr(expected, name)
        found = found[: len(right)]
        if found.shape != right.shape:
            raise ValueError(f"graph.{name}: expected {len(right)} entries, got {len(found)}")
        wrong = found != right
        if wrong.any():
            place = int(wrong.nonzero()[0])
            raise ValueError(
                f"graph.{name}: expected {int(right[place])} at {place} as the edges say, got {int(found[place])}"
            )
    if graph.num_triplets < expected.num_triplets:
        raise ValueError(f"graph.num_triplets: expected at least {expected.num_triplets}, got {graph.num_triplets}")
