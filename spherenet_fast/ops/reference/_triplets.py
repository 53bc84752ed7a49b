"""The triplets of a graph, one by one."""

import torch
from torch import Tensor

DELTA = 1e-4  # radian: azimuths closer than this coincide


def triplet_slots(graph) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """All (q, e), q in in(j), e in out(j), of all centers j, in the order of `triplet_ptr`.

    Returns int64 tensors [num_triplets]: q, e, j, the number of q within in(j), |out(j)|.
    """
    n_in, n_out = graph.in_ptr.diff(), graph.out_ptr.diff()
    atoms = torch.arange(n_in.shape[0], device=n_in.device)
    j = torch.repeat_interleave(atoms, n_in * n_out, output_size=graph.num_triplets)
    n_out = n_out.clamp(min=1)  # where there are pairs it is; compiled code divides in unused lanes too
    within_tile = torch.arange(graph.num_triplets, device=n_in.device) - graph.triplet_ptr[j]
    q_local = within_tile // n_out[j]
    e = graph.out_edge[graph.out_ptr[j] + within_tile % n_out[j]]
    return graph.in_ptr[j] + q_local, e, j, q_local, n_out[j]


def across(u: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """u [T, 3] split along a [T, 3]: z = u.a [T] and p = u - z a [T, 3]."""
    z = (u * a).sum(-1)
    return z, u - z[:, None] * a
