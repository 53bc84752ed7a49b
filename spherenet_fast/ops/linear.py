"""Linear layers, with and without their activation: on the CPU by `product` and `outer_sum`, else by torch."""

import torch
from torch import Tensor

from ._register import compiled, left_to_torch, no_third_derivative, wanted_gradients
from .product import column_sum, outer_sum, product, product_of_torch
from .silu import silu


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias, differentiable any number of times. x [M, K]; weight [N, K]; bias [N]. Returns [M, N].

    Or B of them at once: x [B, M, K]; weight [B, N, K]; bias [B, N]. Returns [B, M, N].
    """
    if not isinstance(x, Tensor):  # it stands for one while a chain of layers is recorded
        return x.linear(weight, bias)
    if left_to_torch(x):
        return product_of_torch(x, weight, bias)
    return _Linear.apply(x, weight, bias)


def linear_silu(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """silu(x weight^T + bias), twice differentiable. Shapes as for `linear`."""
    if not isinstance(x, Tensor):  # it stands for one while a chain of layers is recorded
        return x.linear(weight, bias, with_silu=True)
    if left_to_torch(x):
        return silu(product_of_torch(x, weight, bias))
    return _LinearSilu.apply(x, weight, bias)[0]


class _Linear(torch.autograd.Function):
    """x weight^T + bias; its derivative is made of the same product and of `outer_sum`, and so is theirs."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = wanted_gradients(ctx)
        return (
            _Linear.apply(grad, weight.mT, None) if for_x else None,
            outer_sum(grad, x) if for_weight else None,
            column_sum(grad) if for_bias else None,
        )


class _LinearSilu(torch.autograd.Function):
    """y = silu(h), h = x weight^T + bias. h is an output, too, so that what a second derivative finds for it joins the
    cotangent of y before the products of the backward pass, not after."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        h = product(x, weight, bias)
        ctx.save_for_backward(x, weight, h)
        ctx.set_materialize_grads(False)
        return silu(h), h

    @staticmethod
    def backward(ctx, grad_y: Tensor | None, grad_h: Tensor | None):
        if grad_y is None and grad_h is None:
            return None, None, None
        return _LinearSiluBackward.apply(grad_y, grad_h, *ctx.saved_tensors, *wanted_gradients(ctx))


class _LinearSiluBackward(torch.autograd.Function):
    """The gradients for x, weight and bias from the cotangents of y and h, with e = silu'(h) grad_y + grad_h:

    e weight, e^T x, and the sum of e over the rows.
    """

    @staticmethod
    def forward(ctx, grad_y, grad_h, x: Tensor, weight: Tensor, h: Tensor, *wanted: bool):
        for_x, for_weight, for_bias = wanted
        grad = grad_h
        if grad_y is not None:
            grad = compiled.silu_backward(grad_y, h)
            if grad_h is not None:
                grad.add_(grad_h)
        ctx.save_for_backward(grad_y, x, weight, h, grad)
        ctx.set_materialize_grads(False)
        return (
            product(grad, weight.mT) if for_x else None,
            outer_sum(grad, x) if for_weight else None,
            column_sum(grad) if for_bias else None,
        )

    @staticmethod
    def backward(ctx, *tangents: Tensor | None):
        _, for_grad_h, for_x, for_weight, *_ = wanted_gradients(ctx)
        grads = _LinearSiluDoubleBackward.apply(*tangents, *ctx.saved_tensors, for_grad_h, for_x, for_weight)
        return *grads, None, None, None


class _LinearSiluDoubleBackward(torch.autograd.Function):
    """The gradients for grad_y, grad_h, x, weight and h from the cotangents of the three gradients."""

    @staticmethod
    def forward(ctx, grad_grad_x, grad_grad_weight, grad_grad_bias, grad_y, x, weight, h, grad, *wanted: bool):
        for_grad_h, for_x, for_weight = wanted
        of_grad = []  # the cotangent of grad, in parts
        of_grad_y = of_x = of_weight = of_h = None
        if grad_grad_x is not None:
            of_grad.append(product(grad_grad_x, weight))
            of_weight = outer_sum(grad, grad_grad_x) if for_weight else None
        if grad_grad_weight is not None:
            of_grad.append(product(x, grad_grad_weight))
            of_x = product(grad, grad_grad_weight.mT) if for_x else None
        if grad_grad_bias is not None:
            of_grad.append(grad_grad_bias.unsqueeze(-2).expand_as(grad))
        of_grad = sum(of_grad[1:], of_grad[0]) if of_grad else None
        if grad_y is not None and of_grad is not None:
            of_grad_y, of_h = compiled.silu_double_backward(of_grad, grad_y, h)
        return of_grad_y, of_grad if for_grad_h else None, of_x, of_weight, of_h

    backward = staticmethod(no_third_derivative)
