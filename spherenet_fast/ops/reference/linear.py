"""Linear layers, with and without their activation."""

import torch
from torch import Tensor

from .silu import silu


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias. x [M, K]; weight [N, K]; bias [N]. Returns [M, N]."""
    return torch.nn.functional.linear(x, weight, bias)


def linear_silu(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """silu(x weight^T + bias). x [M, K]; weight [N, K]; bias [N]. Returns [M, N]."""
    return silu(linear(x, weight, bias))
