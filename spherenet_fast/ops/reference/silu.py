"""The activation."""

import torch
from torch import Tensor

from ._precision import full_precision


@full_precision
def silu(x: Tensor) -> Tensor:
    """x / (1 + exp(-x)), element by element."""
    return torch.nn.functional.silu(x)
