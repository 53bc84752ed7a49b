"""Distance basis and radial functions of edge lengths."""

import math

import torch
from torch import Tensor

from ._precision import full_precision

SERIES_TERMS = 20  # of j_l for arguments below l + 1 and l <= 8: the first one left out is below 1e-18


def envelope(x: Tensor, exponent: int) -> Tensor:
    """u(x) = 1/x + a x^(p-1) + b x^p + c x^(p+1) with p = exponent + 1 and u = u' = u'' = 0 at x = 1; 0 beyond.

    x: any shape, distance / cutoff. Returns the same shape.
    """
    p = exponent + 1
    a, b, c = -(p + 1) * (p + 2) / 2, p * (p + 2), -p * (p + 1) / 2
    return torch.where(x < 1, 1 / x + x ** (p - 1) * (a + x * (b + x * c)), torch.zeros_like(x))


def spherical_bessel(order: int, y: Tensor) -> Tensor:
    """j_order(y) for y >= 0, accurate to rounding and twice differentiable, at y = 0 too. y: any shape."""
    small = y < order + 1
    return torch.where(
        small,
        _bessel_series(order, torch.where(small, y, torch.ones_like(y))),
        _bessel_upward(order, torch.where(small, torch.full_like(y, order + 1), y)),
    )


def _bessel_series(order: int, y: Tensor) -> Tensor:
    """j_l(y) = y^l / (2l+1)!! (1 - (y^2/2) / (1 (2l+3)) (1 - (y^2/2) / (2 (2l+5)) (1 - ...))), for y below l + 1."""
    half_square = y * y / 2
    total = torch.ones_like(y)
    for term in range(SERIES_TERMS, 0, -1):
        total = 1 - half_square / (term * (2 * order + 2 * term + 1)) * total
    return y**order / math.prod(range(1, 2 * order + 2, 2)) * total


def _bessel_upward(order: int, y: Tensor) -> Tensor:
    """j_{l+1}(y) = (2l+1)/y j_l(y) - j_{l-1}(y): loses digits for y below l, is stable above."""
    previous, current = torch.cos(y) / y, torch.sin(y) / y  # j_{-1}, j_0
    for below in range(order):
        previous, current = current, (2 * below + 1) / y * current - previous
    return current


@full_precision
def radial_basis(
    distance: Tensor, frequency: Tensor, roots: Tensor, scale: Tensor, cutoff: float, envelope_exponent: int
) -> tuple[Tensor, Tensor]:
    """The functions of a distance: Bessel functions with an envelope, and the radial part of the two other bases.

    bessel_n = u(x) sin(frequency_n x) and radial_ln = scale_ln j_l(roots_ln x), with x = distance / cutoff.

    distance [E], in the unit of `cutoff`; frequency [K]; roots, scale [L, K], constants of any floating dtype.
    Returns bessel [E, K], radial [E, L, K].
    """
    x = distance / cutoff
    roots, scale = roots.to(x.dtype), scale.to(x.dtype)
    bessel = envelope(x, envelope_exponent)[:, None] * torch.sin(frequency * x[:, None])
    orders = [spherical_bessel(order, roots[order] * x[:, None]) for order in range(roots.shape[0])]
    return bessel, scale * torch.stack(orders, dim=1)
