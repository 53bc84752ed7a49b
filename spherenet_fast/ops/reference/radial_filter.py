"""Messages times a linear function of the distance basis."""

from torch import Tensor

from ._precision import full_precision


@full_precision
def radial_filter(x: Tensor, bessel: Tensor, weight: Tensor) -> Tensor:
    """x * (bessel weight^T). x [E, H]; bessel [E, K]; weight [H, K]. Returns [E, H]."""
    return x * (bessel @ weight.T)
