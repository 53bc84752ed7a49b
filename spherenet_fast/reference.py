"""The operators in readable PyTorch: the specification that the fused kernels in `ops.py` are tested against.

Same names, signatures and results as `ops.py`. Every function follows its formula line by line, keeps whatever it
likes per triplet, and is differentiated by plain autograd, twice where the fused operator is. Square roots and
quotients are guarded where an atom, its neighbour and the next one lie on a line, so no derivative is ever NaN.
Under autocast everything runs in float32.
"""

import functools
import math

import torch
from torch import Tensor

DELTA = 1e-4  # radian: azimuths closer than this coincide
COLLINEAR = 1e-5  # a unit direction whose part across the edge is shorter than this has no azimuth
BLEND_EPSILON, BLEND_ETA_SQUARE, BLEND_KAPPA = 1e-3, 1e-2, 2.0  # of smooth_torsion
SERIES_TERMS = 20  # of j_l for arguments below l + 1 and l <= 8: the first one left out is below 1e-18


def _full_precision(operator):
    """Under autocast, run `operator` on float32 copies of its floating-point arguments, without autocast."""

    @functools.wraps(operator)
    def wrapped(*args, **kwargs):
        device = args[0].device.type
        if not torch.is_autocast_enabled(device):
            return operator(*args, **kwargs)

        def cast(value):
            return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value

        with torch.autocast(device, enabled=False):
            return operator(*map(cast, args), **{name: cast(value) for name, value in kwargs.items()})

    return wrapped


# ---------------------------------------------------------------------------------------------- radial basis


def envelope(x: Tensor, exponent: int) -> Tensor:
    """u(x) = 1/x + a x^(p-1) + b x^p + c x^(p+1) with p = exponent + 1 and u = u' = u'' = 0 at x = 1; 0 beyond.

    x: any shape, distance / cutoff. Returns the same shape.
    """
    p = exponent + 1
    a, b, c = -(p + 1) * (p + 2) / 2, p * (p + 2), -p * (p + 1) / 2
    return torch.where(x < 1, 1 / x + x ** (p - 1) * (a + x * (b + x * c)), torch.zeros_like(x))


def spherical_bessel(order: int, y: Tensor) -> Tensor:
    """j_order(y) for y >= 0, accurate to rounding and twice differentiable, at y = 0 too. y: any shape."""
    small = y < order + 1
    return torch.where(
        small,
        _bessel_series(order, torch.where(small, y, torch.ones_like(y))),
        _bessel_upward(order, torch.where(small, torch.full_like(y, order + 1), y)),
    )


def _bessel_series(order: int, y: Tensor) -> Tensor:
    """j_l(y) = y^l / (2l+1)!! (1 - (y^2/2) / (1 (2l+3)) (1 - (y^2/2) / (2 (2l+5)) (1 - ...))), for y below l + 1."""
    half_square = y * y / 2
    total = torch.ones_like(y)
    for term in range(SERIES_TERMS, 0, -1):
        total = 1 - half_square / (term * (2 * order + 2 * term + 1)) * total
    return y**order / math.prod(range(1, 2 * order + 2, 2)) * total


def _bessel_upward(order: int, y: Tensor) -> Tensor:
    """j_{l+1}(y) = (2l+1)/y j_l(y) - j_{l-1}(y): loses digits for y below l, is stable above."""
    previous, current = torch.cos(y) / y, torch.sin(y) / y  # j_{-1}, j_0
    for below in range(order):
        previous, current = current, (2 * below + 1) / y * current - previous
    return current


@_full_precision
def radial_basis(
    distance: Tensor, frequency: Tensor, roots: Tensor, scale: Tensor, cutoff: float, envelope_exponent: int
) -> tuple[Tensor, Tensor]:
    """The functions of a distance: Bessel functions with an envelope, and the radial part of the two other bases.

    bessel_n = u(x) sin(frequency_n x) and radial_ln = scale_ln j_l(roots_ln x), with x = distance / cutoff.

    distance [E], in the unit of `cutoff`; frequency [K]; roots, scale [L, K], constants of any floating dtype.
    Returns bessel [E, K], radial [E, L, K].
    """
    x = distance / cutoff
    roots, scale = roots.to(x.dtype), scale.to(x.dtype)
    bessel = envelope(x, envelope_exponent)[:, None] * torch.sin(frequency * x[:, None])
    orders = [spherical_bessel(order, roots[order] * x[:, None]) for order in range(roots.shape[0])]
    return bessel, scale * torch.stack(orders, dim=1)


# -------------------------------------------------------------------------------------------- pairs of edges


def _pairs(graph) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """All pairs (q, e), q in in(j), e in out(j), of all centres j, in the order of `torsion_reference`.

    Returns int64 tensors [num_pairs]: q, e, j, the number of q within in(j), |out(j)|.
    """
    n_in, n_out = graph.in_ptr.diff(), graph.out_ptr.diff()
    atoms = torch.arange(n_in.shape[0], device=n_in.device)
    j = torch.repeat_interleave(atoms, n_in * n_out, output_size=graph.num_pairs)
    n_out = n_out.clamp(min=1)  # where there are pairs it is; compiled code divides in unused lanes too
    within_tile = torch.arange(graph.num_pairs, device=n_in.device) - graph.pair_ptr[j]
    q_local = within_tile // n_out[j]
    e = graph.out_edge[graph.out_ptr[j] + within_tile % n_out[j]]
    return graph.in_ptr[j] + q_local, e, j, q_local, n_out[j]


def _across(u: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """u [T, 3] split along a [T, 3]: z = u.a [T] and p = u - z a [T, 3]."""
    z = (u * a).sum(-1)
    return z, u - z[:, None] * a


def _azimuths(direction: Tensor, q: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    """Azimuth about e, from an arbitrary zero for each e, of the neighbour at the far end of q, and whether it has one.

    direction [E, 3]; q, e [T]. Returns angle [T] in radian, |p| >= COLLINEAR [T] bool.
    """
    least_aligned = torch.nn.functional.one_hot(direction.abs().argmin(-1), 3).to(direction.dtype)
    first = torch.linalg.cross(direction, least_aligned, dim=-1)
    first = first / first.norm(dim=-1, keepdim=True)
    second = torch.linalg.cross(direction, first, dim=-1)
    _, p = _across(-direction[q], direction[e])
    return torch.atan2((p * second[e]).sum(-1), (p * first[e]).sum(-1)), p.norm(dim=-1) >= COLLINEAR


@torch.no_grad()
def torsion_reference(vec: Tensor, graph) -> Tensor:
    """For every pair (q, e), the neighbour from which the torsion of q about e is measured.

    Turning about e = j->i by the right-hand rule, the next neighbour of j after q is the reference. Not a candidate: q
    itself, the reverse of e (both by index), and neighbours collinear with e. An angle below DELTA counts as a full
    turn more, and among candidates within DELTA of the smallest angle the smallest edge number wins.

    vec [E, 3], any floating dtype (computed in float64). Returns int32 [num_pairs], at pair_ptr[j] + q_local * |out(j)|
    + e_local: the number of the reference within in(j); -1 if no candidate is left (torsion 2 pi); -2 if q is collinear
    with e or is its reverse, so that there is no torsion. Not differentiable.
    """
    reference = torch.empty(graph.num_pairs, dtype=torch.int32, device=vec.device)
    if graph.num_pairs == 0:
        return reference
    vec = vec.detach().double()
    direction = vec / vec.norm(dim=-1, keepdim=True)
    q, e, j, q_local, n_out = _pairs(graph)
    azimuth, has_azimuth = _azimuths(direction, q, e)
    has_azimuth &= q != graph.rev[e]
    n_in = graph.in_ptr.diff()[j]
    slot = torch.arange(int(n_in.max()), device=vec.device)  # the candidates of every pair, padded to the largest
    everything = torch.arange(graph.num_pairs, device=vec.device)
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
        reference[rows] = torch.where(has_azimuth[rows], chosen, -2).int()
    return reference


# ------------------------------------------------------------------------------------------------- gated sum


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


def triplet_geometry(direction: Tensor, reference: Tensor, graph) -> tuple[Tensor, Tensor, Tensor]:
    """z = cos(theta) and re + i im = sin(theta) e^(i phi) of every pair, without ever computing an angle.

    direction [E, 3]; reference [num_pairs] of `torsion_reference`. Returns z, re, im [num_pairs].
    """
    q, e, j, _, _ = _pairs(graph)
    a = direction[e]
    z, p = _across(-direction[q], a)
    has_reference = reference >= 0
    neighbour = torch.where(has_reference, graph.in_ptr[j] + reference, q)
    _, p_next = _across(-direction[neighbour], a)
    length = torch.where(has_reference, p_next.square().sum(-1), 1.0).sqrt()
    own_square = p.square().sum(-1)
    measurable = (reference == -1) & (own_square > 0)
    own_length = torch.where(measurable, own_square, 1.0).sqrt()
    re = torch.where(has_reference, (p * p_next).sum(-1) / length, torch.where(measurable, own_length, 0.0))
    im = (a * torch.linalg.cross(p, p_next, dim=-1)).sum(-1) / length
    return z, re, torch.where(has_reference, im, 0.0)


@_full_precision
def smooth_torsion(direction: Tensor, fade: Tensor, graph, even: bool = False) -> Tensor:
    """re + i im = sin(theta) e^(i phi) of every pair with a torsion measured to a blend of all neighbors.

    For q = k->j about e = j->i, over the neighbors n of j but k and i, p the components across e:

        x + i y = (p_q . p_n + i a . (p_q x p_n)) / sqrt((|p_q|^2 + eta^2) (|p_n|^2 + eta^2))  eta^2 = BLEND_ETA_SQUARE
        w_n = fade_n |p_n|^2 (1 - x) exp(kappa (y - 1)), or of x - 1 if even                   kappa = BLEND_KAPPA
        re + i im = sqrt(|p_q|^2 + eta^2) sum_n w_n (x + i y) / (epsilon + sum_n w_n)          epsilon = BLEND_EPSILON

    direction [E, 3]; fade [E]. Returns [2, num_pairs], 0 where q is the reverse of e.
    """
    q, e, j, q_local, n_out = _pairs(graph)
    if len(q) == 0:
        return (direction.sum() + fade.sum()) * direction.new_zeros(2, 0)
    n_local = torch.arange(int(graph.in_ptr.diff().max()), device=q.device)
    n = graph.in_ptr[j][:, None] + n_local  # [T, most neighbors]
    present = (n < graph.in_ptr[j + 1][:, None]) & (n_local != q_local[:, None])
    n = torch.where(present, n, 0)
    present &= n != graph.rev[e][:, None]
    a = direction[e] / direction[e].norm(dim=-1, keepdim=True)
    p_q = _across(-direction[q], a)[1][:, None].expand(*n.shape, 3)
    p_n = -direction[n] + (direction[n] * a[:, None]).sum(-1, keepdim=True) * a[:, None]
    square = p_n.square().sum(-1)
    length = (p_q.square().sum(-1) + BLEND_ETA_SQUARE).sqrt()
    norm = (square + BLEND_ETA_SQUARE).sqrt() * length
    x = (p_q * p_n).sum(-1) / norm
    y = (a[:, None] * torch.linalg.cross(p_q, p_n, dim=-1)).sum(-1) / norm
    weight = fade[n] * square * (1 - x) * (BLEND_KAPPA * ((x if even else y) - 1)).exp()
    weight = torch.where(present, weight, 0.0)
    total = BLEND_EPSILON + weight.sum(1)
    point = torch.stack([(weight * part).sum(1) for part in (x, y)]) * length[:, 0] / total
    return torch.where(q != graph.rev[e], point, 0.0)


def angle_filter(radial: Tensor, harmonics: Tensor, angle_weight: Tensor, angle_up: Tensor) -> Tensor:
    """angle_up a, a_p = sum_ln angle_weight[p, l K + n] radial[t, l, n] Y_l0(t) of triplets t   (Eq. 5 of the paper).

    radial [T, L, K], of the edge q of each triplet; harmonics [T, L^2], whose torsion may be any;
    angle_weight [P, L K]; angle_up [C, P]. Returns [T, C].
    """
    order = torch.arange(radial.shape[1], device=radial.device)
    return (radial * harmonics[:, order * order, None]).flatten(1) @ angle_weight.T @ angle_up.T


def torsion_filter(
    radial: Tensor, harmonics: Tensor, torsion_weight: Tensor, torsion_up: Tensor, basis: str = "paper"
) -> Tensor:
    """torsion_up t, t_p = sum_hn torsion_weight[p, h K + n] radial[t, o(h), n] Y_h(t) of triplets t          (Eq. 4).

    With h = l^2 + (m if m >= 0 else 2l + 1 + m); o(h) = l in basis "paper" and h mod L in basis "released".
    radial [T, L, K], of the edge q of each triplet; harmonics [T, L^2]; torsion_weight [Q, L^2 K]; torsion_up [C, Q].
    Returns [T, C].
    """
    order = torch.arange(radial.shape[1], device=radial.device)
    number = torch.arange(len(order) ** 2, device=radial.device)
    paired = number % len(order) if basis == "released" else torch.repeat_interleave(order, 2 * order + 1)
    return (radial[:, paired] * harmonics[:, :, None]).flatten(1) @ torsion_weight.T @ torsion_up.T


def _receiver_cosine(vec_q: Tensor, vec_e: Tensor, is_triplet: Tensor) -> Tensor:
    """Cosine of the angle at i between i->j and i->k, for q = k->j and e = j->i. vec [T, 3] -> [T], 0 if k is i."""
    to_j, to_k = -vec_e, -(vec_q + vec_e)
    to_k = torch.where(is_triplet[:, None], to_k, 1.0)
    cosine = (to_j * to_k).sum(-1) / (to_j.norm(dim=-1) * to_k.norm(dim=-1))
    return torch.where(is_triplet, cosine, 0.0)


@_full_precision
def gated_sum(
    x: Tensor,
    radial: Tensor | None,
    direction: Tensor | None,
    torsion: Tensor | None,
    graph,
    angle_weight: Tensor | None,
    angle_up: Tensor | None,
    torsion_weight: Tensor | None,
    torsion_up: Tensor | None,
    basis: str = "paper",
    angle_at: str = "sender",
) -> Tensor:
    """M[e, c] = sum over q of x[q, c] (angle_up a)[c] (torsion_up t)[c], q running over the triplets (q, e).

    The two factors are `angle_filter` and `torsion_filter`; that of a pair of weights that is None is 1.
    angle_at "receiver": theta is the angle at i between i->j and i->k instead of the one at j between j->i and j->k,
    there is no torsion, and direction is vec itself.

    x [E, C]; radial [E, L, K]; direction [E, 3], vec / |vec|; torsion: [num_pairs] of `torsion_reference`, or
    [2, num_pairs] of `smooth_torsion`; angle_weight [P, L K]; angle_up [C, P];
    torsion_weight [Q, L^2 K]; torsion_up [C, Q]. Returns M [E, C].
    """
    q, e, *_ = _pairs(graph)
    message = x[q]
    if angle_weight is not None or torsion_weight is not None:
        smooth = torsion_weight is not None and torsion.is_floating_point()
        if torsion_weight is None or smooth:  # then the angle is all that is wanted, and any reference will do
            reference = torch.full_like(q, -2)
        else:
            reference = torsion
        if angle_at == "receiver":
            z = _receiver_cosine(direction[q], direction[e], q != graph.rev[e])
            re = im = torch.zeros_like(z)
        else:
            z, re, im = triplet_geometry(direction, reference, graph)
        if smooth:
            re, im = torsion
        harmonics = spherical_harmonics(z, re, im, radial.shape[1])
    if angle_weight is not None:
        message = message * angle_filter(radial[q], harmonics, angle_weight, angle_up)
    if torsion_weight is not None:
        message = message * torsion_filter(radial[q], harmonics, torsion_weight, torsion_up, basis)
    is_triplet = q != graph.rev[e]
    return torch.zeros_like(x).index_add(0, e, torch.where(is_triplet[:, None], message, 0.0))


# ------------------------------------------------------------------------------------- sums over the graph


@_full_precision
def segment_sum(x: Tensor, ptr: Tensor, index: Tensor | None = None, segment: Tensor | None = None) -> Tensor:
    """out[n] = sum of x[index[k]], or of x[k] where index is None, over k in ptr[n]:ptr[n+1].

    x [E, C], ptr [N + 1], index [E] or None; segment [E], the n of every row, for the derivative of fused kernels.
    Returns [N, C].
    """
    if index is not None:
        x = x.index_select(0, index)
    atoms = torch.arange(ptr.shape[0] - 1, device=x.device)
    segment = torch.repeat_interleave(atoms, ptr.diff(), output_size=x.shape[0])
    return x.new_zeros(ptr.shape[0] - 1, *x.shape[1:]).index_add(0, segment, x)


@_full_precision
def gather(x: Tensor, index: Tensor, ptr: Tensor, perm: Tensor | None = None) -> Tensor:
    """x[index]: x [N, C], index [E]. Returns [E, C].

    ptr [N + 1] and perm [E] or None list where each row of x is used; fused kernels need them for the derivative.
    """
    return x.index_select(0, index)


@_full_precision
def radial_gate(x: Tensor, bessel: Tensor, weight: Tensor) -> Tensor:
    """x * (bessel weight^T). x [E, H]; bessel [E, K]; weight [H, K]. Returns [E, H]."""
    return x * (bessel @ weight.T)


@_full_precision
def silu(x: Tensor) -> Tensor:
    """x / (1 + exp(-x)), element by element."""
    return torch.nn.functional.silu(x)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias. x [M, K]; weight [N, K]; bias [N]. Returns [M, N]."""
    return torch.nn.functional.linear(x, weight, bias)


def linear_silu(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """silu(x weight^T + bias). x [M, K]; weight [N, K]; bias [N]. Returns [M, N]."""
    return silu(linear(x, weight, bias))


def outer_sum(a: Tensor, b: Tensor) -> Tensor:
    """a^T b. a [M, N]; b [M, K]. Returns [N, K]."""
    return a.T @ b
