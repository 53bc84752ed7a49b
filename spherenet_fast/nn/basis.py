"""Constants of the radial basis: roots of the spherical Bessel functions and the norms that go with them.

NumPy alone, a millisecond or two, float64 to the last digits.
"""

import functools

import numpy as np


def _bessel(order: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """j_order(x) and j_{order-1}(x), by the upward recurrence, which is stable for x > order. x: any shape."""
    previous, current = np.cos(x) / x, np.sin(x) / x
    for below in range(order):
        previous, current = current, (2 * below + 1) / x * current - previous
    return current, previous


@functools.lru_cache
def spherical_bessel_roots(num_spherical: int, num_radial: int) -> np.ndarray:
    """The first `num_radial` positive roots of j_0 .. j_{num_spherical-1}: [L, K] float64, read-only.

    j_0 has its roots at n pi, and between two neighboring roots of j_{l-1} lies exactly one of j_l: a few bisections
    come close, and Newton's method with j_l' = j_{l-1} - (l+1)/x j_l does the rest.
    """
    roots = np.arange(1, num_radial + num_spherical) * np.pi
    rows = [roots[:num_radial]]
    for order in range(1, num_spherical):
        low, high = roots[:-1], roots[1:]
        sign = np.sign(_bessel(order, low)[0])
        for _ in range(4):
            middle = (low + high) / 2
            left = np.sign(_bessel(order, middle)[0]) == sign
            low, high = np.where(left, middle, low), np.where(left, high, middle)
        roots = (low + high) / 2
        for _ in range(4):
            value, below = _bessel(order, roots)
            roots = roots - value / (below - (order + 1) / roots * value)
        rows.append(roots[:num_radial])
    table = np.stack(rows)
    table.setflags(write=False)
    return table


def spherical_bessel_scale(roots: np.ndarray) -> np.ndarray:
    """sqrt(2) / |j_{l+1}(root)|, which makes j_l(root_ln x) orthonormal in n on 0..1 with weight x^2. roots: [L, K]."""
    return np.sqrt(2) / np.abs([_bessel(order + 1, row)[0] for order, row in enumerate(roots)])


def constant_of_bessel(roots: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The weights [K] of scale_0n j_0(roots_0n x) whose sum is near 1 for x from 0.15 to 0.95.

    By regularized least squares: all of these functions are 0 at x = 1, and an exact fit would need large weights.
    roots, scale: [L, K].
    """
    x = np.linspace(0.15, 0.95, 33)[:, None] * roots[0]
    values = scale[0] * np.sin(x) / x
    ridge = 1e-2 * len(values) * np.eye(len(roots[0]))
    return np.linalg.solve(values.T @ values + ridge, values.sum(0))


def spherical_bessel_constants(num_spherical: int, num_radial: int, basis: str) -> tuple[np.ndarray, np.ndarray]:
    """Roots and scale, [L, K] float64 each, of the radial functions in basis "paper" or "dig".

    The released code rounds the roots to float32 and evaluates the norms from them in float32 arithmetic. Its weights
    belong to those functions, so basis "dig" repeats both, rounding by rounding.
    """
    roots = spherical_bessel_roots(num_spherical, num_radial)
    if basis == "paper":
        return roots, spherical_bessel_scale(roots)
    rounded = roots.astype(np.float32)
    roots = rounded.astype(np.float64)
    above = np.stack([_bessel(order + 1, row)[0] for order, row in enumerate(roots)])
    cylindrical = (above * np.sqrt(2 * roots / np.pi)).astype(np.float32)  # J_{l+3/2}
    spherical = np.sqrt(np.float32(np.pi) / (np.float32(2) * rounded)) * cylindrical
    norm = np.sqrt(np.float32(0.5) * (spherical * spherical))
    return roots, (np.float32(1) / norm).astype(np.float64)
