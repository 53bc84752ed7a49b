"""The constants of the radial basis and the functions of distances and angles against SciPy."""

import math

import numpy as np
import pytest
import scipy.special
import torch

from spherenet_fast.nn import basis
from spherenet_fast.ops import reference

# random gradcheck inputs lie far from every kink; finite differences of 1e-6 leave 1e-5 of a value of order 1 to 10
GRADCHECK = dict(atol=1e-5, rtol=1e-4)


def test_bessel_roots():
    roots = basis.spherical_bessel_roots(8, 16)
    assert roots.shape == (8, 16) and roots.dtype == np.float64
    # j_l changes sign within a few units in the last place of the root: nothing closer can be asked of float64
    for order, row in enumerate(roots):
        below = scipy.special.spherical_jn(order, row * (1 - 1e-15))
        assert (below * scipy.special.spherical_jn(order, row * (1 + 1e-15)) < 0).all()
    np.testing.assert_allclose(roots[0], np.pi * np.arange(1, 17), rtol=1e-15)
    # none is left out: between two neighboring roots of j_{l-1} lies exactly one of j_l
    assert (roots[:-1] < roots[1:]).all() and (roots[1:, :-1] < roots[:-1, 1:]).all()


def test_bessel_scale_makes_functions_orthonormal():
    roots = basis.spherical_bessel_roots(8, 16)
    scale = basis.spherical_bessel_scale(roots)
    node, weight = np.polynomial.legendre.leggauss(80)  # exact to rounding for products of 16 oscillations
    x, weight = (node + 1) / 2, weight / 2
    for order in range(8):
        functions = scale[order, :, None] * scipy.special.spherical_jn(order, roots[order, :, None] * x)
        np.testing.assert_allclose(functions * weight * x**2 @ functions.T, np.eye(16), atol=1e-12)


def test_released_constants_are_rounded():
    exact = basis.spherical_bessel_constants(7, 6, "paper")
    rounded = basis.spherical_bessel_constants(7, 6, "dig")
    np.testing.assert_array_equal(rounded[0], exact[0].astype(np.float32).astype(np.float64))
    # a handful of float32 roundings, 6e-8 each
    np.testing.assert_allclose(rounded[1], exact[1], rtol=1e-6)
    assert (rounded[1] == rounded[1].astype(np.float32)).all() and (rounded[1] != exact[1]).any()


@pytest.mark.parametrize("order", range(8))
def test_spherical_bessel(order):
    tiny, switch = [0, 1e-300, 1e-30, 1e-12, 1e-6], [order + 1 - 1e-9, order + 1]
    y = np.concatenate([tiny, np.geomspace(1e-3, 60, 4001), switch])
    expected = torch.from_numpy(scipy.special.spherical_jn(order, y))
    argument = torch.from_numpy(y).requires_grad_()
    value = reference.spherical_bessel(order, argument)
    (first,) = torch.autograd.grad(value.sum(), argument, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), argument)
    # the recurrence multiplies rounding by at most some ten where it starts; below it is relative to the value
    torch.testing.assert_close(value.detach(), expected, rtol=1e-14, atol=3e-15)
    small = (y > 0) & (y < 0.5) & (expected.numpy() > 1e-290)
    torch.testing.assert_close(value.detach()[small], expected[small], rtol=1e-12, atol=0)  # SciPy loses some itself
    derivative = torch.from_numpy(scipy.special.spherical_jn(order, y, derivative=True))
    known = y != 1e-300  # where SciPy underflows
    torch.testing.assert_close(first.detach()[known], derivative[known], rtol=1e-13, atol=1e-14)
    # Bessel's equation, y^2 j'' + 2 y j' + (y^2 - l (l+1)) j = 0
    value, first, second = (tensor.detach().numpy() for tensor in (value, first, second))
    residual = y**2 * second + 2 * y * first + (y**2 - order * (order + 1)) * value
    assert (np.abs(residual) <= 1e-13 * (1 + y**2)).all()


def test_envelope():
    x = torch.linspace(0.05, 1.5, 59, dtype=torch.float64)
    expected = [1 / v - 28 * v**5 + 48 * v**6 - 21 * v**7 if v < 1 else 0.0 for v in x.tolist()]  # p = 6
    # single operations of numbers up to 48
    torch.testing.assert_close(reference.envelope(x, 5), torch.tensor(expected, dtype=x.dtype), rtol=1e-13, atol=1e-13)
    end = torch.tensor([1 - 1e-4], dtype=torch.float64, requires_grad=True)
    value = reference.envelope(end, 5)
    (slope,) = torch.autograd.grad(value, end, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, end)
    # u'''(1) = -336, so h before the end u'' = 336 h, u' = -168 h^2, u = 56 h^3 up to a relative error of order h
    assert curvature.item() == pytest.approx(336e-4, rel=1e-2)
    assert slope.item() == pytest.approx(-168e-8, rel=1e-2)
    assert value.item() == pytest.approx(56e-12, rel=1e-2)


def test_radial_basis():
    distance = torch.tensor([0.3, 1.1, 2.9, 4.99, 5.0, 6.0], dtype=torch.float64)
    frequency = torch.tensor([3.0, 6.5], dtype=torch.float64)
    roots, scale = map(torch.from_numpy, map(np.array, basis.spherical_bessel_constants(3, 2, "paper")))
    bessel, radial = reference.radial_basis(distance, frequency, roots, scale, 5.0, 5)
    assert bessel.shape == (6, 2) and radial.shape == (6, 3, 2)
    x = (distance / 5).numpy()
    envelope = reference.envelope(distance / 5, 5).numpy()
    # elementary functions of exact inputs: a few roundings
    np.testing.assert_allclose(bessel, envelope[:, None] * np.sin(x[:, None] * frequency.numpy()), rtol=1e-13)
    assert (bessel[-2:] == 0).all()
    for order in range(3):
        expected = scale[order].numpy() * scipy.special.spherical_jn(order, x[:, None] * roots[order].numpy())
        np.testing.assert_allclose(radial[:, order], expected, rtol=1e-12, atol=1e-13)

    def function(distance, frequency):
        return reference.radial_basis(distance, frequency, roots, scale, 5.0, 5)

    inputs = distance[:4].clone().requires_grad_(), frequency.requires_grad_()
    assert torch.autograd.gradcheck(function, inputs, **GRADCHECK)
    assert torch.autograd.gradgradcheck(function, inputs, **GRADCHECK)


def test_harmonics():
    generator = np.random.default_rng(0)
    theta, phi = generator.uniform(0, np.pi, 50), generator.uniform(0, 2 * np.pi, 50)
    theta[:2] = 0, np.pi
    z, s = np.cos(theta), np.sin(theta)
    values = reference.spherical_harmonics(*map(torch.from_numpy, (z, s * np.cos(phi), s * np.sin(phi))), 8)
    for degree in range(8):
        for m in range(-degree, degree + 1):
            expected = scipy.special.sph_harm_y(degree, abs(m), theta, phi)
            expected = expected.real if m == 0 else math.sqrt(2) * (expected.real if m > 0 else expected.imag)
            column = degree**2 + (m if m >= 0 else 2 * degree + 1 + m)
            # polynomials with coefficients up to some hundred
            np.testing.assert_allclose(values[:, column], expected, atol=1e-13, rtol=0)
