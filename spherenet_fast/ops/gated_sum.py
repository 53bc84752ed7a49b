"""The sum over triplets of one interaction block."""

import torch
from torch import Tensor

from ._register import compiled, fake, graph_arrays, twice_differentiable, wanted_gradients


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
    return compiled.gated_sum(
        x, radial, direction, None if smooth else torsion, torsion if smooth else None,
        angle_weight, angle_up, torsion_weight, torsion_up,
        *graph_arrays(graph),
        basis == "released", angle_at == "receiver", x.is_cuda and _tf32_allowed(),
    )  # fmt: skip


@torch.compiler.assume_constant_result
def _tf32_allowed() -> bool:
    """Whether float32 matrix products on a GPU may round their factors to TF32 (or might have when compiled)."""
    return torch.backends.cuda.matmul.fp32_precision == "tf32"


# Inputs: x, radial, direction, reference, point, four weights, five arrays of the graph, released, angle_at_receiver,
# tf32.

_DIFFERENTIABLE = (0, 1, 2, 4, 5, 6, 7, 8)
_GEOMETRY, _WEIGHTS = (1, 2, 4), (5, 6, 7, 8)


@fake("gated_sum")
def _(x, *others):
    return x.new_empty(x.shape)


def _empty_gradients(inputs, geometry, weights):
    """Of all differentiable inputs; of size 0 where an input is absent or its group is not asked for."""
    geometry = geometry and inputs[_WEIGHTS[0]] is not None
    x = inputs[0]
    asked = [k == 0 or (geometry if k in _GEOMETRY else weights) for k in _DIFFERENTIABLE]
    given = [inputs[k] if yes else None for k, yes in zip(_DIFFERENTIABLE, asked, strict=True)]
    return tuple(x.new_empty(0) if t is None else t.new_empty(t.shape) for t in given)


@fake("gated_sum_backward")
def _(grad_out, *arguments):
    *inputs, geometry, weights = arguments
    return _empty_gradients(inputs, geometry, weights)


@fake("gated_sum_double_backward")
def _(*arguments):
    grad_out, *inputs, geometry, weights = arguments[len(_DIFFERENTIABLE) :]
    return grad_out.new_empty(grad_out.shape), *_empty_gradients(inputs, geometry, weights)


def _groups(needed, offset):
    """Whether geometry (radial, direction, point) and weights want gradients."""
    return tuple(any(needed[offset + k] for k in group) for group in (_GEOMETRY, _WEIGHTS))


def _spread(grads, inputs, needed, offset):
    """Gradients of the differentiable inputs among all inputs of an operator, None where nobody asked.

    An input that is given but plays no part (radial without weights) has an empty gradient: None, too.
    """
    out = [None] * len(needed)
    for grad, k in zip(grads, _DIFFERENTIABLE):
        if needed[k + offset] and inputs[k] is not None and grad.shape == inputs[k].shape:
            out[k + offset] = grad
    return out


def _gated_sum_backward(ctx, grad_out):
    if grad_out is None:
        return (None,) * len(ctx.needs_input_grad)
    needed, inputs = wanted_gradients(ctx), ctx.saved_tensors
    grads = compiled.gated_sum_backward(grad_out, *inputs, *ctx.numbers, *_groups(needed, 0))
    return tuple(_spread(grads, inputs, needed, 0))


def _gated_sum_double_backward(ctx, *tangents):
    if all(tangent is None for tangent in tangents):
        return (None,) * len(ctx.needs_input_grad)
    needed = wanted_gradients(ctx)
    grad_out, *inputs = ctx.saved_tensors
    # The backward operator returns an empty tensor for what is absent; its cotangent says nothing.
    present = [t if inputs[k] is not None else None for t, k in zip(tangents, _DIFFERENTIABLE)]
    present = [None if t is not None and t.shape != inputs[k].shape else t for t, k in zip(present, _DIFFERENTIABLE)]
    flags = ctx.numbers[:3]  # without those of the groups that the backward pass was asked for
    grad_grad_out, *grads = compiled.gated_sum_double_backward(*present, grad_out, *inputs, *flags, *_groups(needed, 1))
    out = _spread(grads, inputs, needed, 1)
    out[0] = grad_grad_out
    return tuple(out)


twice_differentiable("gated_sum", _gated_sum_backward, _gated_sum_double_backward, tensors=14)
