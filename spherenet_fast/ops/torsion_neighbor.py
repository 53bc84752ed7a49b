"""The neighbor that each triplet's torsion is measured to, by the paper's rule."""

import torch
from torch import Tensor

from ._register import compiled, fake, graph_arrays


def torsion_neighbor(vec: Tensor, graph) -> Tensor:
    """The neighbor that each triplet's torsion is measured to.

    For the edge e = j->i and a neighbor q = k->j it is the next neighbor of j counterclockwise about e; never q itself
    nor the reverse of e (both by index), nor a neighbor collinear with e (|component across e| < 1e-5).
    Azimuths within 1e-4 rad count as one, and among those tied the smallest edge number wins, so rounding decides
    nothing.

    vec [E, 3], sender to receiver; graph as `radius_graph` returns it.
    Returns int32 [graph.num_triplets], at triplet_ptr[j] + (q's number in in(j)) * |out(j)| + (e's number in out(j)):
    that neighbor's number in in(j); -1 where nobody is left, which is torsion 2 pi; -2 where q has no torsion about e.
    What is past triplet_ptr[N], in a graph with room for more, means nothing.
    """
    return compiled.torsion_neighbor(vec.detach(), *graph_arrays(graph), graph.num_triplets)


@fake("torsion_neighbor")
def _(vec, in_ptr, out_ptr, out_edge, rev, triplet_ptr, num_triplets):
    return vec.new_empty(num_triplets, dtype=torch.int32)
