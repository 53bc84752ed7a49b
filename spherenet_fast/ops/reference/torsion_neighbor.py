"""The neighbor that each triplet's torsion is measured to, by the paper's rule."""

import math

import torch
from torch import Tensor

from ._triplets import DELTA, across, triplet_slots

COLLINEAR = 1e-5  # a unit direction whose part across the edge is shorter than this has no azimuth


@torch.no_grad()
def torsion_neighbor(vec: Tensor, graph) -> Tensor:
    """For every triplet (q, e), the neighbor from which the torsion of q about e is measured.

    Turning about e = j->i by the right-hand rule, it is the next neighbor of j after q. Not a candidate: q
    itself, the reverse of e (both by index), and neighbors collinear with e. An angle below DELTA counts as a full
    turn more, and among candidates within DELTA of the smallest angle the smallest edge number wins.

    vec [E, 3], any floating dtype (computed in float64). Returns int32 [num_triplets], at
    triplet_ptr[j] + q_local * |out(j)| + e_local: the number of the neighbor within in(j); -1 if no candidate is left
    (torsion 2 pi); -2 if q is collinear with e or is its reverse, so that there is no torsion. Not differentiable.
    """
    neighbor = torch.empty(graph.num_triplets, dtype=torch.int32, device=vec.device)
    if graph.num_triplets == 0:
        return neighbor
    vec = vec.detach().double()
    direction = vec / vec.norm(dim=-1, keepdim=True)
    q, e, j, q_local, n_out = triplet_slots(graph)
    azimuth, has_azimuth = _azimuths(direction, q, e)
    has_azimuth &= q != graph.rev[e]
    n_in = graph.in_ptr.diff()[j]
    slot = torch.arange(int(n_in.max()), device=vec.device)  # the candidates of every triplet, padded to the largest
    everything = torch.arange(graph.num_triplets, device=vec.device)
    for rows in everything.split(max(1, 2**22 // len(slot))):  # bounds the memory, not the result
        pair = (rows - q_local[rows] * n_out[rows])[:, None] + slot * n_out[rows, None]  # (candidate, e)
        exists = slot < n_in[rows, None]
        pair = torch.where(exists, pair, 0)
        allowed = exists & has_azimuth[pair] & (slot != q_local[rows, None])
        angle = torch.remainder(azimuth[pair] - azimuth[rows, None], 2 * math.pi)
        angle = torch.where(angle < DELTA, angle + 2 * math.pi, angle)
        angle = torch.where(allowed, angle, math.inf)
        smallest = angle.amin(dim=1, keepdim=True)
        first_tied = (allowed & (angle - smallest < DELTA)).int().argmax(dim=1)  # argmax returns the first one
        chosen = torch.where(allowed.any(dim=1), first_tied, -1)
        neighbor[rows] = torch.where(has_azimuth[rows], chosen, -2).int()
    return neighbor


def _azimuths(direction: Tensor, q: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    """Azimuth about e, from an arbitrary zero for each e, of the neighbor at the far end of q, and whether it has one.

    direction [E, 3]; q, e [T]. Returns angle [T] in radian, |p| >= COLLINEAR [T] bool.
    """
    least_aligned = torch.nn.functional.one_hot(direction.abs().argmin(-1), 3).to(direction.dtype)
    first = torch.linalg.cross(direction, least_aligned, dim=-1)
    first = first / first.norm(dim=-1, keepdim=True)
    second = torch.linalg.cross(direction, first, dim=-1)
    _, p = across(-direction[q], direction[e])
    return torch.atan2((p * second[e]).sum(-1), (p * first[e]).sum(-1)), p.norm(dim=-1) >= COLLINEAR
