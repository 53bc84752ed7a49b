"""Shapes and derivatives of `product` and `outer_sum`, of which linear layers and their gradients are made."""

import torch

from ._autograd import _derivative, _fake, wanted_gradients

_ops = torch.ops.spherenet_fast


def product(x, weight, bias=None):
    """x weight^T + bias: on the CPU summed in one order, elsewhere torch's. x [M, K]; weight [N, K]; bias [N]."""
    return _ops.product(x, weight, bias) if x.is_cpu else torch.nn.functional.linear(x, weight, bias)


def column_sum(x):
    """The sum of the rows, the gradient of a bias, in one order. x [M, N]. Returns [N]."""
    # torch shares a sum into one number among its threads
    return _ops.outer_sum(x, x.new_ones(x.shape)).flatten() if x.is_cpu and x.shape[1] == 1 else x.sum(0)


@_fake("product")
def _(x, weight, bias):
    return x.new_empty(x.shape[0], weight.shape[0])


def _product_backward(ctx, grad):
    x, weight = ctx.saved_tensors
    for_x, for_weight, for_bias = wanted_gradients(ctx)
    return (
        product(grad, weight.t()) if for_x else None,
        _ops.outer_sum(grad, x) if for_weight else None,
        column_sum(grad) if for_bias else None,
    )


_derivative("product", _product_backward, lambda ctx, inputs, output: ctx.save_for_backward(*inputs[:2]))


@_fake("outer_sum")
def _(a, b):
    return a.new_empty(a.shape[1], b.shape[1])


def _outer_sum_backward(ctx, grad):
    a, b = ctx.saved_tensors
    for_a, for_b = wanted_gradients(ctx)
    return product(b, grad) if for_a else None, product(a, grad.t()) if for_b else None


_derivative("outer_sum", _outer_sum_backward, lambda ctx, inputs, output: ctx.save_for_backward(*inputs))
