"""The activation."""

from torch import Tensor

from ._register import compiled, fake, twice_differentiable


def silu(x: Tensor) -> Tensor:
    """silu(x) = x / (1 + exp(-x)), whose first and second derivatives each take one pass over memory.

    x: any shape. Returns the same shape.
    """
    return compiled.silu(x)


@fake("silu")
def _(x):
    return x.new_empty(x.shape)


@fake("silu_backward")
def _(grad, x):
    return x.new_empty(x.shape)


@fake("silu_double_backward")
def _(grad_grad_x, grad, x):
    return x.new_empty(x.shape), x.new_empty(x.shape)


def _silu_backward(ctx, grad):
    return None if grad is None else compiled.silu_backward(grad, *ctx.saved_tensors)


def _silu_double_backward(ctx, grad_grad_x):
    return (None, None) if grad_grad_x is None else compiled.silu_double_backward(grad_grad_x, *ctx.saved_tensors)


twice_differentiable("silu", _silu_backward, _silu_double_backward, tensors=1)
