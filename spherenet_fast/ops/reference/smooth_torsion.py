"""A smooth torsion of every triplet, blended from all neighbors."""

import torch
from torch import Tensor

from ._precision import full_precision
from ._triplets import across, triplet_slots

BLEND_EPSILON, BLEND_ETA_SQUARE, BLEND_KAPPA = 1e-3, 1e-2, 2.0


@full_precision
def smooth_torsion(direction: Tensor, fade: Tensor, graph, even: bool = False) -> Tensor:
    """re + i im = sin(theta) e^(i phi) of every triplet with a torsion measured to a blend of all neighbors.

    For q = k->j about e = j->i, over the neighbors n of j but k and i, p the components across e:

        x + i y = (p_q . p_n + i a . (p_q x p_n)) / sqrt((|p_q|^2 + eta^2) (|p_n|^2 + eta^2))  eta^2 = BLEND_ETA_SQUARE
        w_n = fade_n |p_n|^2 (1 - x) exp(kappa (y - 1)), or of x - 1 if even                   kappa = BLEND_KAPPA
        re + i im = sqrt(|p_q|^2 + eta^2) sum_n w_n (x + i y) / (epsilon + sum_n w_n)          epsilon = BLEND_EPSILON

    direction [E, 3]; fade [E]. Returns [2, num_triplets], 0 where q is the reverse of e.
    """
    q, e, j, q_local, n_out = triplet_slots(graph)
    if len(q) == 0:
        return (direction.sum() + fade.sum()) * direction.new_zeros(2, 0)
    n_local = torch.arange(int(graph.in_ptr.diff().max()), device=q.device)
    n = graph.in_ptr[j][:, None] + n_local  # [T, most neighbors]
    present = (n < graph.in_ptr[j + 1][:, None]) & (n_local != q_local[:, None])
    n = torch.where(present, n, 0)
    present &= n != graph.rev[e][:, None]
    a = direction[e] / direction[e].norm(dim=-1, keepdim=True)
    p_q = across(-direction[q], a)[1][:, None].expand(*n.shape, 3)
    p_n = -direction[n] + (direction[n] * a[:, None]).sum(-1, keepdim=True) * a[:, None]
    square = p_n.square().sum(-1)
    length = (p_q.square().sum(-1) + BLEND_ETA_SQUARE).sqrt()
    norm = (square + BLEND_ETA_SQUARE).sqrt() * length
    x = (p_q * p_n).sum(-1) / norm
    y = (a[:, None] * torch.linalg.cross(p_q, p_n, dim=-1)).sum(-1) / norm
    weight = fade[n] * square * (1 - x) * (BLEND_KAPPA * ((x if even else y) - 1)).exp()
    weight = torch.where(present, weight, 0.0)
    total = BLEND_EPSILON + weight.sum(1)
    torsion = torch.stack([(weight * part).sum(1) for part in (x, y)]) * length[:, 0] / total
    return torch.where(q != graph.rev[e], torsion, 0.0)
