"""Matrix products of linear layers by oneDNN where torch has it, else by torch.

On the CPU torch's float32 products go to MKL, which is slower than oneDNN on AMD processors. oneDNN is reached through
the operator that torch's own compiler emits for linear layers.
"""

import torch
from torch import Tensor

from ._autograd import wanted_gradients


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias, differentiable any number of times. x [M, K]; weight [N, K]; bias [N]. Returns [M, N]."""
    if _takes(x, weight):
        return _Linear.apply(x, weight, bias)
    return torch.nn.functional.linear(x, weight, bias)


def _takes(x: Tensor, weight: Tensor) -> bool:
    return (
        not torch.compiler.is_compiling()  # compiled code chooses for itself
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.shape[0] > 0
        and torch.backends.mkldnn.is_available()
        and not torch.is_autocast_enabled("cpu")
    )


class _Linear(torch.autograd.Function):
    """x weight^T + bias; its derivative is made of the same product and of `_Outer`, and so is theirs."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        # A transposed weight is as fast as a plain one; for any other layout oneDNN falls back to a loop over elements.
        if not weight.t().is_contiguous():
            weight = weight.contiguous()
        return torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight, bias, "none", [], "")

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = wanted_gradients(ctx)
        return (
            _Linear.apply(grad, weight.t(), None) if for_x else None,
            _Outer.apply(grad, x) if for_weight else None,
            grad.sum(0) if for_bias else None,
        )


class _Outer(torch.autograd.Function):
    """a^T b, the gradient of a weight. a [M, N]; b [M, K]. Returns [N, K]."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        # The wide factor first: the product of a narrow one has other bits with another number of threads.
        return a.t() @ b if a.shape[1] >= b.shape[1] else (b.t() @ a).t()

    @staticmethod
    def backward(ctx, grad: Tensor):
        a, b = ctx.saved_tensors
        for_a, for_b = wanted_gradients(ctx)
        return (
            _Linear.apply(b, grad, None) if for_a else None,
            _Linear.apply(a, grad.t(), None) if for_b else None,
        )
