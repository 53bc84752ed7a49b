"""The fused operators, with exact first and second derivatives.

Equivalent to the functions of the same name in `reference.py`, which say what is computed in a few lines of PyTorch.
Floating-point arguments share one dtype, float32 or float64; under autocast the operators run in float32, but for the
products of linear layers, which are what autocast is for. A bad argument raises RuntimeError with its name, what was
expected and what came. Third derivatives raise RuntimeError.

Arrays that describe a graph, or an index and its transpose, are trusted to belong together; with
SPHERENET_FAST_CHECKS=1 in the environment they are compared, on CPU and GPU alike, which takes time.
"""

import torch
from torch import Tensor

from . import _autograd  # noqa: F401  registers the operators
from ._linear import linear, linear_silu, outer_sum  # noqa: F401  operators made of torch's and others of ours

_ops = torch.ops.spherenet_fast


def radial_basis(
    distance: Tensor, frequency: Tensor, roots: Tensor, scale: Tensor, cutoff: float, envelope_exponent: int
) -> tuple[Tensor, Tensor]:
    """Distance basis and radial functions of edge lengths (the radial parts of the paper's Eqs. 4, 5 and 6).

        bessel[e, n] = u(x) sin(frequency[n] x),   radial[e, l, n] = scale[l, n] j_l(roots[l, n] x)

    with x = distance / cutoff and the envelope u(x) = 1/x + a x^(p-1) + b x^p + c x^(p+1), p = envelope_exponent + 1,
    which is 0 from x = 1 on.

    distance [E], in the unit of cutoff; frequency [K], K <= 16; roots, scale [L, K] constants, L <= 8.
    Returns bessel [E, K] and radial [E, L, K], differentiable in distance and frequency.
    """
    return _ops.radial_basis(distance, frequency, roots.double(), scale.double(), float(cutoff), int(envelope_exponent))


def neighbor_pointers(
    pos: Tensor, batch: Tensor | None, cutoff: float, edge_capacity: int = -1, pair_capacity: int = -1
) -> tuple[Tensor, Tensor, Tensor]:
    """First step of the search for neighbours in molecules without periodic images; `neighbor_edges` is the second.

    Every two atoms of one molecule that are closer than the cutoff are neighbours, judged in float64.

    pos [N, 3]; batch [N] int64, ascending, or None: one molecule; capacities: the most edges and pairs to be stored,
    -1: no limit. Returns in_ptr and pair_ptr [N+1] of the graph (its out_ptr is in_ptr), and status [3]: the number of
    edges and of pairs found, and of atoms with something wrong: coordinates that are not finite, molecule numbers that
    are negative or fall, another atom at the same place. If more is found than there is room for, or anything is wrong,
    both pointers are 0: a graph without edges. Nothing waits for a GPU.
    """
    return _ops.neighbor_pointers(pos.detach(), batch, float(cutoff), edge_capacity, pair_capacity)


def neighbor_edges(
    pos: Tensor, batch: Tensor | None, in_ptr: Tensor, cutoff: float, num_edges: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Second step: edge_index [2, E], out_edge [E] and rev [E] of a `Graph` with E = num_edges rows.

    pos, batch, cutoff: as in the first step, which has returned in_ptr. Rows past in_ptr[N] are padding: -1 in
    edge_index and rev, the row's own number in out_edge.
    """
    return _ops.neighbor_edges(pos.detach(), batch, in_ptr, float(cutoff), num_edges)


def torsion_reference(vec: Tensor, graph) -> Tensor:
    """The neighbour that each triplet's torsion is measured to.

    For the edge e = j->i and a neighbour q = k->j it is the next neighbour of j anticlockwise about e; never q itself
    nor the reverse of e (both by index), nor a neighbour collinear with e (|component across e| < 1e-5).
    Azimuths within 1e-4 rad count as one, and among those tied the smallest edge number wins, so rounding decides
    nothing.

    vec [E, 3], sender to receiver; graph as `radius_graph` returns it.
    Returns int32 [graph.num_pairs], at pair_ptr[j] + (q's number in in(j)) * |out(j)| + (e's number in out(j)): the
    reference's number in in(j); -1 where nobody is left, which is torsion 2 pi; -2 where q has no torsion about e.
    What is past pair_ptr[N], in a graph with room for more, means nothing.
    """
    return _ops.torsion_reference(
        vec.detach(), graph.in_ptr, graph.out_ptr, graph.out_edge, graph.rev, graph.pair_ptr, graph.num_pairs
    )


def smooth_torsion(direction: Tensor, fade: Tensor, graph, even: bool = False) -> Tensor:
    """sin(theta) (cos phi, sin phi) of every triplet with a smooth torsion phi, measured to a blend of all neighbors.

        re + i im = s_q sum_n w_n exp(i D_n) / (1e-3 + sum_n w_n),      D_n the azimuth of n less that of q,
        w_n = fade_n s_n^2 (1 - cos D_n) exp(2 (sin D_n - 1)),          even: exp(2 (cos D_n - 1))

    for q = k->j and e = j->i, n over the neighbors of j but k and i, s the sine of the angle to e. Both cos D and sin D
    go to 0 with s_q and s_n, by s / sqrt(s^2 + 0.01) each, so there are derivatives of all orders wherever `fade` has
    them, and a neighbor that is collinear with e has no weight. If even, reflections change the sign of the second
    number and nothing else.

    direction [E, 3], vec / |vec|; fade [E], the weight of the sender as a neighbor, 0 at the cutoff; graph as
    `radius_graph` returns it. Returns [2, graph.num_pairs], slots as of `torsion_reference`, 0 where q is the reverse
    of e; twice differentiable in direction and fade.
    """
    return _ops.smooth_torsion(
        direction, fade, graph.in_ptr, graph.out_ptr, graph.out_edge, graph.rev, graph.pair_ptr, graph.num_pairs, even
    )


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
    """The sum over triplets of one interaction block, without a tensor that has a triplet dimension.

        M[e, c] = sum over q of x[q, c] (angle_up a)[c] (torsion_up t)[c]
        a[p] = sum_ln angle_weight[p, l K + n] radial[q, l, n] Y_l0(theta)                  (Eq. 5)
        t[p] = sum_hn torsion_weight[p, h K + n] radial[q, o(h), n] Y_h(theta, phi)         (Eq. 4)

    where q runs over the edges k->j into the sender of e = j->i, except the reverse of e;
    h = l^2 + (m >= 0 ? m : 2l+1+m) numbers the harmonics, and o(h) = l for basis "paper", h mod L for "released".

    x [E, C]; radial [E, L, K] of `radial_basis`; direction [E, 3] = vec / |vec|; torsion [num_pairs] of
    `torsion_reference`, or [2, num_pairs] of `smooth_torsion`; angle_weight [P, L K]; angle_up [C, P];
    torsion_weight [Q, L^2 K]; torsion_up [C, Q].
    Without the two torsion weights their factor is 1 (torsion may be None); without all four M is the plain sum.
    angle_at: theta is the angle at j between the directions to k and to i; "receiver" makes it the angle at i between
    those to j and to k, without torsion. Then direction holds the vectors vec [E, 3] themselves.
    On a GPU float32 products are rounded to TF32 where torch's own are (`torch.set_float32_matmul_precision`).
    Returns M [E, C], twice differentiable in x, radial, direction, a smooth torsion and the weights.
    """
    if basis not in ("paper", "released"):
        raise ValueError(f"basis: expected 'paper' or 'released', got {basis!r}")
    if angle_at not in ("sender", "receiver"):
        raise ValueError(f"angle_at: expected 'sender' or 'receiver', got {angle_at!r}")
    if torsion_weight is None:
        torsion = None
    smooth = torsion is not None and torsion.is_floating_point()
    return _ops.gated_sum(
        x, radial, direction, None if smooth else torsion, torsion if smooth else None,
        angle_weight, angle_up, torsion_weight, torsion_up,
        graph.in_ptr, graph.out_ptr, graph.out_edge, graph.rev, graph.pair_ptr,
        basis == "released", angle_at == "receiver", x.is_cuda and _tf32_allowed(),
    )  # fmt: skip


@torch.compiler.assume_constant_result
def _tf32_allowed() -> bool:
    """Whether float32 matrix products on a GPU may round their factors to TF32 (or might have when compiled)."""
    return torch.backends.cuda.matmul.fp32_precision == "tf32"


def segment_sum(x: Tensor, ptr: Tensor, index: Tensor | None = None, segment: Tensor | None = None) -> Tensor:
    """out[n] = sum of x[index[k]] (x[k] where index is None) over k in ptr[n] .. ptr[n+1], in that order.

    x [E, C]; ptr [N+1]; index [E], a permutation of the rows; segment [E], the n that each row is added to, -1 for a
    row of none: the same by row, which the derivative needs and otherwise makes itself. Rows of none are the last ones
    of index. Returns [N, C], differentiable any number of times.
    """
    return _ops.segment_sum(x, ptr, index, segment)


def gather(x: Tensor, index: Tensor, ptr: Tensor, perm: Tensor | None = None) -> Tensor:
    """x[index], whose derivative is `segment_sum(grad, ptr, perm)`: no atomics, the same bits on every run.

    x [N, C]; index [E], -1 for a row of zeros; ptr [N+1] and perm [E] the same index by row:
    perm[ptr[n] .. ptr[n+1]] (or that range itself) are the positions where index is n.
    Returns [E, C], differentiable any number of times.
    """
    return _ops.gather(x, index, ptr, perm)


def radial_gate(x: Tensor, bessel: Tensor, weight: Tensor) -> Tensor:
    """x * (bessel weight^T): messages times a linear function of the distance basis, which is never stored.

    x [E, H]; bessel [E, K] of `radial_basis`, K <= 16; weight [H, K]. Returns [E, H], twice differentiable.
    """
    return _ops.radial_gate(x, bessel, weight)


def silu(x: Tensor) -> Tensor:
    """silu(x) = x / (1 + exp(-x)), whose first and second derivatives each take one pass over memory.

    x: any shape. Returns the same shape.
    """
    return _ops.silu(x)
