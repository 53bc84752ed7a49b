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
    angle_expand: Tensor | None,
    torsion_weight: Tensor | None,
    torsion_expand: Tensor | None,
    basis: str = "paper",
    angle_at: str = "sender",
) -> Tensor:
    """The sum over triplets of one interaction block, without a tensor that has a triplet dimension.

        M[e, c] = sum over q of x[q, c] (angle_expand a)[c] (torsion_expand t)[c]
        a[p] = sum_ln angle_weight[p, l K + n] radial[q, l, n] Y_l0(theta)                  (Eq. 5)
        t[p] = sum_hn torsion_weight[p, h K + n] radial[q, o(h), n] Y_h(theta, phi)         (Eq. 4)

    where q runs over the edges k->j into the sender of e = j->i, except the reverse of e;
    h = l^2 + (m >= 0 ? m : 2l+1+m) numbers the harmonics, and o(h) = l for basis "paper", h mod L for "dig".

    x [E, C]; radial [E, L, K], the radial basis; direction [E, 3] = vec / |vec|; torsion [num_triplets] int32, the
    neighbors that the paper's torsions are measured to, or [2, num_triplets], smooth torsions; angle_weight [P, L K];
    angle_expand [C, P]; torsion_weight [Q, L^2 K]; torsion_expand [C, Q].
    Without the two torsion weights their factor is 1 (torsion may be None); without all four M is the plain sum.
    angle_at: theta is the angle at j between the directions to k and to i; "receiver" makes it the angle at i between
    those to j and to k, without torsion. Then direction holds the vectors vec [E, 3] themselves.
    On a GPU float32 products are rounded to TF32 where torch's own are (`torch.set_float32_matmul_precision`).
    Returns M [E, C], twice differentiable in x, radial, direction, a smooth torsion and the weights.
    """
    if basis not in ("paper", "dig"):
        raise ValueError(f"basis: expected 'paper' or 'dig', got {basis!r}")
    if angle_at not in ("sender", "receiver"):
        raise ValueError(f"angle_at: expected 'sender' or 'receiver', got {angle_at!r}")
    if torsion_weight is None:
        torsion = None
    smooth = torsion is not None and torsion.is_floating_point()
    return compiled.gated_sum(
        x, radial, direction, torsion if smooth else None, angle_weight, angle_expand, torsion_weight, torsion_expand,
        None if smooth else torsion, *graph_arrays(graph),
        basis == "dig", angle_at == "receiver", x.is_cuda and _tf32_allowed(),
    )  # fmt: skip


def _tf32_allowed() -> bool:
    """Whether float32 matrix products on a GPU may round their factors to TF32 (or might have when compiled)."""
    return torch.backends.cuda.matmul.fp32_precision == "tf32"


# as torch.compiler.assume_constant_result does it, which imports the whole compiler, half of the time of an import
_tf32_allowed._dynamo_marked_constant = True  # type: ignore[attr-defined]


# Inputs: the differentiable ones (x, radial, direction, a smooth torsion, four weights), whom the paper's torsions are
# measured to, five arrays of the graph, and the numbers dig, angle_at_receiver, tf32. The backward passes take two
# more, whether the geometry and the weights want gradients. What is absent or not asked for has one of size 0.

_DIFFERENTIABLE, _TENSORS = 8, 14
_GEOMETRY, _WEIGHTS = slice(1, 4), slice(4, 8)


@fake("gated_sum")
def _(x, *others):
    return x.new_empty(x.shape)


def _empty_gradients(inputs, geometry, weights):
    x, given = inputs[0], list(inputs[:_DIFFERENTIABLE])
    if not geometry or inputs[_WEIGHTS][0] is None:
        given[_GEOMETRY] = [None] * 3
    if not weights:
        given[_WEIGHTS] = [None] * 4
    return tuple(x.new_empty(0) if t is None else t.new_empty(t.shape) for t in given)


@fake("gated_sum_backward")
def _(grad_out, *arguments):
    *inputs, geometry, weights = arguments
    return _empty_gradients(inputs, geometry, weights)


@fake("gated_sum_double_backward")
def _(*arguments):
    grad_out, *inputs, geometry, weights = arguments[_DIFFERENTIABLE:]
    return grad_out.new_empty(grad_out.shape), *_empty_gradients(inputs, geometry, weights)


def _present(of_gradients, inputs):
    """None for what belongs to an empty gradient."""
    pairs = zip(of_gradients, inputs[:_DIFFERENTIABLE], strict=True)
    return [None if t is None or given is None or t.shape != given.shape else t for t, given in pairs]


def _gated_sum_backward(ctx, grad_out):
    if grad_out is None:
        return (None,) * len(ctx.needs_input_grad)
    wanted, inputs = wanted_gradients(ctx), ctx.saved_tensors
    groups = any(wanted[_GEOMETRY]), any(wanted[_WEIGHTS])
    grads = _present(compiled.gated_sum_backward(grad_out, *inputs, *ctx.numbers, *groups), inputs)
    grads = [grad if yes else None for grad, yes in zip(grads, wanted)]
    return *grads, *[None] * (len(wanted) - _DIFFERENTIABLE)


def _gated_sum_double_backward(ctx, *tangents):
    if all(tangent is None for tangent in tangents):
        return (None,) * len(ctx.needs_input_grad)
    grad_out, *inputs = ctx.saved_tensors
    _, *wanted = wanted_gradients(ctx)
    groups = any(wanted[_GEOMETRY]), any(wanted[_WEIGHTS])
    numbers = ctx.numbers[:3]  # without the groups that the backward pass was asked for
    tangents = _present(tangents, inputs)
    grad_grad_out, *grads = compiled.gated_sum_double_backward(*tangents, grad_out, *inputs, *numbers, *groups)
    grads = [grad if yes else None for grad, yes in zip(_present(grads, inputs), wanted)]
    return grad_grad_out, *grads, *[None] * (len(wanted) - _DIFFERENTIABLE)


twice_differentiable("gated_sum", _gated_sum_backward, _gated_sum_double_backward, tensors=_TENSORS)
