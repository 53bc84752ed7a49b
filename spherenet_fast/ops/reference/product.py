"""The gradient of a linear layer's weight."""

from torch import Tensor


def outer_sum(a: Tensor, b: Tensor) -> Tensor:
    """a^T b. a [M, N]; b [M, K]. Returns [N, K]."""
    return a.T @ b
