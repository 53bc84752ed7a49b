"""A smooth torsion of every triplet, blended from all neighbors."""

from torch import Tensor

from ._register import compiled, fake, graph_arrays, twice_differentiable


def smooth_torsion(direction: Tensor, fade: Tensor, graph, even: bool = False) -> Tensor:
    """sin(theta) (cos phi, sin phi) of every triplet with a smooth torsion phi, measured to a blend of all neighbors.

        re + i im = s_q sum_n w_n exp(i D_n) / (1e-3 + sum_n w_n),      D_n the azimuth of n less that of q,
        w_n = fade_n s_n^2 (1 - cos D_n) exp(2 (sin D_n - 1)),          even: exp(2 (cos D_n - 1))

    for q = k->j and e = j->i, n over the neighbors of j but k and i, s the sine of the angle to e. Both cos D and sin D
    go to 0 with s_q and s_n, by s / sqrt(s^2 + 0.01) each, so there are derivatives of all orders wherever `fade` has
    them, and a neighbor that is collinear with e has no weight. If even, reflections change the sign of the second
    number and nothing else.

    direction [E, 3], vec / |vec|; fade [E], the weight of the sender as a neighbor, 0 at the cutoff; graph as
    `radius_graph` returns it. Returns [2, graph.num_triplets], at
    triplet_ptr[j] + (q's number in in(j)) * |out(j)| + (e's number in out(j)), 0 where q is the reverse of e; twice
    differentiable in direction and fade.
    """
    return compiled.smooth_torsion(direction, fade, *graph_arrays(graph), graph.num_triplets, even)


@fake("smooth_torsion")
def _(direction, fade, in_ptr, out_ptr, out_edge, rev, triplet_ptr, num_triplets, even):
    return direction.new_empty(2, num_triplets)


@fake("smooth_torsion_backward")
def _(grad_torsion, direction, fade, *others):
    return direction.new_empty(direction.shape), fade.new_empty(fade.shape)


@fake("smooth_torsion_double_backward")
def _(grad_grad_direction, grad_grad_fade, grad_torsion, direction, fade, *others):
    return tuple(tensor.new_empty(tensor.shape) for tensor in (grad_torsion, direction, fade))


def _smooth_torsion_backward(ctx, grad_torsion):
    if grad_torsion is None:
        return (None,) * 9
    return *compiled.smooth_torsion_backward(grad_torsion, *ctx.saved_tensors, *ctx.numbers), *[None] * 7


def _smooth_torsion_double_backward(ctx, *tangents):
    if all(tangent is None for tangent in tangents):
        return (None,) * 10
    return *compiled.smooth_torsion_double_backward(*tangents, *ctx.saved_tensors, *ctx.numbers), *[None] * 7


twice_differentiable("smooth_torsion", _smooth_torsion_backward, _smooth_torsion_double_backward, tensors=7)
