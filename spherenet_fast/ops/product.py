"""Products of which linear layers and their gradients are made: `product` and `outer_sum`, summed in one order.

torch's products on the CPU are MKL's and oneDNN's, which choose their way by the processor and the number of threads:
on some of them the last bits change with it. Both operators have kernels for the CPU alone; on other devices the
functions of this module take torch's products. So do they, on every device, for batches of products, whose tensors have
one more dimension B in front.
"""

import torch
from torch import Tensor

from ._register import compiled, cpu_only, derivative, fake, full_precision, wanted_gradients

cpu_only("product", "outer_sum")


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias. x [M, K]; weight [N, K]; bias [N]. Returns [M, N], differentiable any number of times."""
    return compiled.product(x, weight, bias) if x.is_cpu and x.dim() == 2 else product_of_torch(x, weight, bias)


def product_of_torch(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`product` by torch's own operators."""
    if x.dim() == 2:
        return torch.nn.functional.linear(x, weight, bias)
    return torch.bmm(x, weight.mT) if bias is None else torch.baddbmm(bias[:, None], x, weight.mT)


def outer_sum(a: Tensor, b: Tensor) -> Tensor:
    """a^T b, the gradient of a weight, summed in the order of the rows. a [M, N]; b [M, K]. Returns [N, K].

    Differentiable any number of times.
    """
    return compiled.outer_sum(a, b) if a.is_cpu and a.dim() == 2 else a.mT @ b


def column_sum(x: Tensor) -> Tensor:
    """The sum of the rows, the gradient of a bias, in one order. x [M, N]. Returns [N]."""
    # torch shares a sum into one number among its threads
    return outer_sum(x, x.new_ones(x.shape)).flatten() if x.is_cpu and x.shape[1:] == (1,) else x.sum(-2)


def by_inner(weight: Tensor) -> Tensor:
    """weight [N, K] as it is read by `product`, and by `row_chain` forward: in memory [K, N], so that none is made."""
    return weight.t().contiguous().t()


@fake("product")
def _(x, weight, bias):
    return x.new_empty(x.shape[0], weight.shape[0])


def _product_backward(ctx, grad):
    x, weight = ctx.saved_tensors
    for_x, for_weight, for_bias = wanted_gradients(ctx)
    return (
        product(grad, weight.t()) if for_x else None,
        outer_sum(grad, x) if for_weight else None,
        column_sum(grad) if for_bias else None,
    )


derivative("product", _product_backward, lambda ctx, inputs, output: ctx.save_for_backward(*inputs[:2]))
full_precision("product")


@fake("outer_sum")
def _(a, b):
    return a.new_empty(a.shape[1], b.shape[1])


def _outer_sum_backward(ctx, grad):
    a, b = ctx.saved_tensors
    for_a, for_b = wanted_gradients(ctx)
    return product(b, grad) if for_a else None, product(a, grad.t()) if for_b else None


derivative("outer_sum", _outer_sum_backward, lambda ctx, inputs, output: ctx.save_for_backward(*inputs))
full_precision("outer_sum")
