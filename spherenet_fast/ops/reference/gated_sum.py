"""The sum over triplets of one interaction block."""

import math

import torch
from torch import Tensor

from ._precision import full_precision
from ._triplets import across, triplet_slots


@full_precision
def gated_sum(
    x: Tensor,
    radial: Tensor | None,
    direction: Tensor | None,
    torsion: Tensor | None,
    graph,
    angle_weight: Tensor | None,
    angle_expand: Tensor | None,
    torsion_weight: Tensor | None,
    torsion_expand: Tensor | None,
    basis: str = "paper",
    angle_at: str = "sender",
) -> Tensor:
    """M[e, c] = sum over q of x[q, c] (angle_expand a)[c] (torsion_expand t)[c], q running over the triplets (q, e).

    The two factors are `angle_filter` and `torsion_filter`; that of a pair of weights that is None is 1.
    angle_at "receiver": theta is the angle at i between i->j and i->k instead of the one at j between j->i and j->k,
    there is no torsion, and direction is vec itself.

    x [E, C]; radial [E, L, K]; direction [E, 3], vec / |vec|; torsion: [num_triplets] int32, whom the
    paper's are measured to, or [2, num_triplets], smooth ones; angle_weight [P, L K]; angle_expand [C, P];
    torsion_weight [Q, L^2 K]; torsion_expand [C, Q]. Returns M [E, C].
    """
    q, e, *_ = triplet_slots(graph)
    message = x[q]
    if angle_weight is not None or torsion_weight is not None:
        smooth = torsion_weight is not None and torsion.is_floating_point()
        if torsion_weight is None or smooth:  # then the angle is all that is wanted, and any neighbor will do
            measured_to = torch.full_like(q, -2)
        else:
            measured_to = torsion
        if angle_at == "receiver":
            z = _receiver_cosine(direction[q], direction[e], q != graph.rev[e])
            re = im = torch.zeros_like(z)
        else:
            z, re, im = triplet_geometry(direction, measured_to, graph)
        if smooth:
            re, im = torsion
        harmonics = spherical_harmonics(z, re, im, radial.shape[1])
    if angle_weight is not None:
        message = message * angle_filter(radial[q], harmonics, angle_weight, angle_expand)
    if torsion_weight is not None:
        message = message * torsion_filter(radial[q], harmonics, torsion_weight, torsion_expand, basis)
    is_triplet = q != graph.rev[e]
    return torch.zeros_like(x).index_add(0, e, torch.where(is_triplet[:, None], message, 0.0))


def spherical_harmonics(z: Tensor, re: Tensor, im: Tensor, num_spherical: int) -> Tensor:
    """Real spherical harmonics as polynomials of z = cos(theta) and re + i im = sin(theta) e^(i phi).

    Y_lm = (-1)^m N_lm (d^m P_l / dz^m) Re (re + i im)^m for m >= 0, the same with Im (re + i im)^|m| for m < 0, where
    N_lm = sqrt((2l+1) / 4 pi (l-|m|)! / (l+|m|)!), times sqrt(2) for m != 0. Off the unit sphere the polynomials go on.

    z, re, im [T]. Returns [T, L^2], L = num_spherical; within one l the order is m = 0, 1..l, -l..-1.
    """
    harmonics = [torch.zeros_like(z)] * num_spherical**2
    cosine, sine = torch.ones_like(z), torch.zeros_like(z)  # real and imaginary part of (re + i im)^m
    for m in range(num_spherical):
        below, legendre = torch.zeros_like(z), torch.full_like(z, math.prod(range(1, 2 * m, 2)))  # m-th derivatives
        for degree in range(m, num_spherical):
            factorials = math.factorial(degree - m) / math.factorial(degree + m)
            norm = (-1) ** m * math.sqrt((2 if m else 1) * (2 * degree + 1) / (4 * math.pi) * factorials)
            harmonics[degree**2 + m] = norm * legendre * cosine
            if m:
                harmonics[degree**2 + 2 * degree + 1 - m] = norm * legendre * sine
            above = ((2 * degree + 1) * z * legendre - (degree + m) * below) / (degree + 1 - m)
            below, legendre = legendre, above
        cosine, sine = cosine * re - sine * im, cosine * im + sine * re
    return torch.stack(harmonics, dim=-1)


def triplet_geometry(direction: Tensor, measured_to: Tensor, graph) -> tuple[Tensor, Tensor, Tensor]:
    """z = cos(theta) and re + i im = sin(theta) e^(i phi) of every triplet, without ever computing an angle.

    direction [E, 3]; measured_to [num_triplets] int32, numbers within in(j), or -1 and -2 as in the paper's torsions.
    Returns z, re, im [num_triplets].
    """
    q, e, j, _, _ = triplet_slots(graph)
    a = direction[e]
    z, p = across(-direction[q], a)
    measured = measured_to >= 0
    neighbor = torch.where(measured, graph.in_ptr[j] + measured_to, q)
    _, p_next = across(-direction[neighbor], a)
    length = torch.where(measured, p_next.square().sum(-1), 1.0).sqrt()
    own_square = p.square().sum(-1)
    measurable = (measured_to == -1) & (own_square > 0)
    own_length = torch.where(measurable, own_square, 1.0).sqrt()
    re = torch.where(measured, (p * p_next).sum(-1) / length, torch.where(measurable, own_length, 0.0))
    im = (a * torch.linalg.cross(p, p_next, dim=-1)).sum(-1) / length
    return z, re, torch.where(measured, im, 0.0)


def angle_filter(radial: Tensor, harmonics: Tensor, angle_weight: Tensor, angle_expand: Tensor) -> Tensor:
    """angle_expand a, a_p = sum_ln angle_weight[p, l K + n] radial[t, l, n] Y_l0(t) of triplets t           (Eq. 5).

    radial [T, L, K], of the edge q of each triplet; harmonics [T, L^2], whose torsion may be any;
    angle_weight [P, L K]; angle_expand [C, P]. Returns [T, C].
    """
    order = torch.arange(radial.shape[1], device=radial.device)
    return (radial * harmonics[:, order * order, None]).flatten(1) @ angle_weight.T @ angle_expand.T


def torsion_filter(
    radial: Tensor, harmonics: Tensor, torsion_weight: Tensor, torsion_expand: Tensor, basis: str = "paper"
) -> Tensor:
    """torsion_expand t, t_p = sum_hn torsion_weight[p, h K + n] radial[t, o(h), n] Y_h(t) of triplets t     (Eq. 4).

    With h = l^2 + (m if m >= 0 else 2l + 1 + m); o(h) = l in basis "paper" and h mod L in basis "dig".
    radial [T, L, K], of the edge q of each triplet; harmonics [T, L^2]; torsion_weight [Q, L^2 K];
    torsion_expand [C, Q]. Returns [T, C].
    """
    order = torch.arange(radial.shape[1], device=radial.device)
    number = torch.arange(len(order) ** 2, device=radial.device)
    paired = number % len(order) if basis == "dig" else torch.repeat_interleave(order, 2 * order + 1)
    return (radial[:, paired] * harmonics[:, :, None]).flatten(1) @ torsion_weight.T @ torsion_expand.T


def _receiver_cosine(vec_q: Tensor, vec_e: Tensor, is_triplet: Tensor) -> Tensor:
    """Cosine of the angle at i between i->j and i->k, for q = k->j and e = j->i. vec [T, 3] -> [T], 0 if k is i."""
    to_j, to_k = -vec_e, -(vec_q + vec_e)
    to_k = torch.where(is_triplet[:, None], to_k, 1.0)
    cosine = (to_j * to_k).sum(-1) / (to_j.norm(dim=-1) * to_k.norm(dim=-1))
    return torch.where(is_triplet, cosine, 0.0)
