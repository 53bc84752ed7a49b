"""The fused radial basis and both its derivatives against the readable one."""

import math

import pytest
import torch
from gpu import DEVICE
from operator_cases import assert_close, bessel_constants, cast, derivatives, raises, strided

from spherenet_fast import ops
from spherenet_fast.ops import reference

CUTOFF, EXPONENT = 5.0, 5
SHAPES = [(7, 6), (3, 6), (1, 1), (1, 16), (2, 4), (8, 1), (8, 16)]


def inputs(num_radial, num_edges=700):
    """Distances from 0.4 Å to beyond the cutoff, more than one chunk of them; frequencies near n pi."""
    distance = torch.linspace(0.4, 1.2 * CUTOFF, num_edges, dtype=torch.float64)
    number = torch.arange(1, num_radial + 1).double()
    frequency = math.pi * number + 0.1 * torch.cos(number)
    return {"distance": distance, "frequency": frequency}


def function(operators, num_spherical, num_radial, exponent=EXPONENT):
    constants = bessel_constants(num_spherical, num_radial)
    return lambda distance, frequency: operators.radial_basis(distance, frequency, *constants, CUTOFF, exponent)


# float64: a few roundings of 1e-16, in second derivatives times squares of arguments up to 80.
# float32: sines and cosines to 1e-7, whatever their arguments, then some ten roundings of 6e-8 in each function.
PRECISIONS = [(torch.float64, 1e-11), (torch.float32, 1e-5)]


def compare(operators, given, num_spherical, num_radial, exponent, tolerance):
    """Values and both derivatives in the dtype of the inputs, against those in float64."""
    found = derivatives(function(operators, num_spherical, num_radial, exponent), given)
    exact = cast(given, torch.float64)
    assert_close(found, derivatives(function(reference, num_spherical, num_radial, exponent), exact), tolerance)


@pytest.mark.parametrize("dtype, tolerance", PRECISIONS)
@pytest.mark.parametrize("num_spherical, num_radial", SHAPES)
def test_every_size(num_spherical, num_radial, dtype, tolerance, instruction_set):
    given = cast(inputs(num_radial), dtype)
    found = derivatives(function(ops, num_spherical, num_radial), given)
    assert all(tensor.dtype == dtype for tensor in found.values())
    expected = derivatives(function(reference, num_spherical, num_radial), cast(given, torch.float64))
    assert_close(found, expected, tolerance)


@pytest.mark.parametrize("num_edges", [0, 1, 3, 511, 512, 513])
def test_every_number_of_edges(num_edges):
    given = inputs(4, num_edges)
    assert_close(derivatives(function(ops, 3, 4), given), derivatives(function(reference, 3, 4), given), 1e-11)


@pytest.mark.parametrize("exponent", [0, 1, 2, 8])
def test_envelope_exponents(exponent):
    given = inputs(4)
    expected = derivatives(function(reference, 2, 4, exponent), given)
    assert_close(derivatives(function(ops, 2, 4, exponent), given), expected, 1e-11)


@pytest.mark.parametrize("distance", [1e-3, 0.05, 0.3, CUTOFF])
def test_every_digit_at_special_distances(distance):
    """Near 0 upward recurrences would lose j_7 altogether."""
    given = inputs(16) | {"distance": torch.tensor([distance], dtype=torch.float64)}
    expected = function(reference, 8, 16)(*given.values())
    for found, exact in zip(function(ops, 8, 16)(*given.values()), expected, strict=True):
        # every single number; at x = 1 they are zeros of functions whose arguments, up to 70, are rounded to 1e-14
        torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-13 if distance == CUTOFF else 0)


@pytest.mark.parametrize("distance", [1e-3, 0.05, 0.3, 1.0, 4.9])
def test_digits_of_float32_at_special_distances(distance, instruction_set):
    given = cast(inputs(16) | {"distance": torch.tensor([distance])}, torch.float32)
    expected = function(reference, 8, 16)(*cast(given, torch.float64).values())
    for found, exact in zip(function(ops, 8, 16)(*given.values()), expected, strict=True):
        # Below 0.1 no argument reaches 1: every single number, though j_7 is 1e-24, from a power of seven factors and a
        # series, some ten roundings of 6e-8. Elsewhere sines pass through 0, and the recurrence begins with their 1e-7
        # and lets it grow to a few times that, beside the largest function of an order.
        scale = exact.abs().amax(dim=-1, keepdim=True) if distance > 0.1 else exact.abs()
        assert ((found.double() - exact).abs() <= 1e-6 * scale).all()


def test_float32_is_as_exact_as_the_documentation_says():
    given = cast(inputs(6), torch.float32)
    found = derivatives(function(ops, 7, 6), given)
    expected = derivatives(function(reference, 7, 6), cast(given, torch.float64))
    # 2.3e-7 at most where it was measured; another compiler contracts other sums
    assert_close(found, expected, 5e-7)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("edge", range(16))
def test_one_distance_that_is_not_a_number_is_its_edge_alone(edge, dtype):
    given = cast(inputs(4, 16), dtype)
    given["distance"] = torch.linspace(1e-3, 1.2 * CUTOFF, 16).to(dtype)
    clean = function(ops, 8, 4)(*given.values())
    given["distance"][edge] = torch.nan
    for found, expected in zip(function(ops, 8, 4)(*given.values()), clean, strict=True):
        others = torch.arange(16) != edge
        assert torch.equal(found[others], expected[others]) and found[edge].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_nothing_beyond_the_cutoff(dtype):
    """However far: where float32 knows nothing of an argument any more, too."""
    factors = [1, 1.01, 7, 1e5, 1e8, 1e12]
    beyond = (CUTOFF * torch.tensor(factors, dtype=torch.float64)).to(dtype).requires_grad_()
    bessel, _ = function(ops, 3, 4)(beyond, inputs(4)["frequency"].to(dtype))
    (slope,) = torch.autograd.grad(bessel.sum(), beyond, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), beyond)
    assert (bessel == 0).all() and (slope == 0).all() and (curvature == 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_distance_basis_ends_smoothly(dtype):
    """u, u' and u'' vanish at the cutoff, so just inside it the basis is of third order in what is left."""
    left = 1e-4
    inside = torch.tensor([(1 - left) * CUTOFF], dtype=dtype, requires_grad=True)
    bessel, _ = function(ops, 1, 1)(inside, torch.ones(1, dtype=dtype))
    (slope,) = torch.autograd.grad(bessel.sum(), inside, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), inside)
    # |u'''| = p (p + 1) (p + 2) = 336 for p = 6 and sin(1) = 0.84: 336 / 6 * 0.84 = 47 for the value, and so on
    assert 0 < bessel.abs().item() < 100 * left**3
    assert 0 < slope.abs().item() < 100 * left**2
    assert 0 < curvature.abs().item() < 100 * left


def test_strided_inputs():
    given = inputs(4)
    gaps = {name: strided(value) for name, value in given.items()}
    expected, found = derivatives(function(ops, 3, 4), given), derivatives(function(ops, 3, 4), gaps)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    constants = bessel_constants(3, 4)
    plain = ops.radial_basis(*given.values(), *constants, CUTOFF, EXPONENT)
    wide = ops.radial_basis(*given.values(), *map(strided, constants), CUTOFF, EXPONENT)
    assert all(torch.equal(a, b) for a, b in zip(plain, wide, strict=True))


@pytest.mark.parametrize("output", [0, 1])
@pytest.mark.parametrize("name", ["distance", "frequency"])
def test_derivatives_of_one_output_by_one_input(output, name):
    """Where only some cotangents come in, the others count as 0."""

    def both(operators):
        leaves = {key: value.requires_grad_(key == name) for key, value in inputs(4).items()}
        value = function(operators, 3, 4)(*leaves.values())[output]
        if not value.requires_grad:  # radial does not depend on the frequencies
            return None
        weights = torch.linspace(-1, 1, value.numel(), dtype=torch.float64).reshape(value.shape)
        options = dict(allow_unused=True, materialize_grads=True)
        (first,) = torch.autograd.grad((value * weights).sum(), leaves[name], create_graph=True, **options)
        second = torch.autograd.grad(first.square().sum(), leaves[name], **options) if first.requires_grad else ()
        return {str(number): tensor.detach() for number, tensor in enumerate([first, *second])}

    found, expected = both(ops), both(reference)
    if expected is None:  # the fused operator has one node for both outputs, and says 0
        assert all((tensor == 0).all() for tensor in found.values())
    else:
        assert_close(found, expected, 1e-11)


@pytest.mark.parametrize("dtype, tolerance", PRECISIONS)
@pytest.mark.parametrize("num_spherical, num_radial", [(7, 6), (1, 1), (8, 16)])
@pytest.mark.parametrize("edges", [0, 1, 700])
@pytest.mark.cuda
def test_on_a_gpu(edges, num_spherical, num_radial, dtype, tolerance):
    given = cast(inputs(num_radial, edges), dtype)
    roots, scale = (constant.to(DEVICE) for constant in bessel_constants(num_spherical, num_radial))
    on_gpu = cast(given, dtype, DEVICE)
    found = derivatives(lambda *leaves: ops.radial_basis(*leaves, roots, scale, CUTOFF, EXPONENT), on_gpu)
    expected = derivatives(function(reference, num_spherical, num_radial), cast(given, torch.float64))
    assert_close(found, expected, tolerance)


# ---- errors ----------------------------------------------------------------------------------------------------------

DOUBLE = dict(dtype=torch.float64)
L, K = 3, 2
ROOTS, SCALE = bessel_constants(L, K)
NINE = torch.ones(9, K, **DOUBLE)  # one order too many


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(distance=torch.ones(4, 1, **DOUBLE)), r"distance: expected shape \[any\], got \[4, 1\]"),
        (dict(distance=torch.ones(4)), "frequency: expected dtype Float, got Double"),
        (dict(frequency=torch.ones(K, 1, **DOUBLE)), r"frequency: expected shape \[any\], got \[2, 1\]"),
        (dict(frequency=torch.ones(K + 1, **DOUBLE)), r"roots: expected shape \[any, 3\], got \[3, 2\]"),
        (dict(roots=NINE, scale=NINE), "roots: expected 1 .. 8 orders, got 9"),
        (dict(roots=ROOTS[0]), r"roots: expected shape \[any, 2\], got \[2\]"),
        (dict(scale=SCALE[:2]), r"scale: expected shape \[3, 2\], got \[2, 2\]"),
        (dict(cutoff=0.0), "cutoff: expected a number from 1e-20 to 1e20, got 0"),
        (dict(cutoff=-5.0), "cutoff: expected a number from 1e-20 to 1e20, got -5"),
        (dict(cutoff=1e-21), "cutoff: expected a number from 1e-20 to 1e20, got 1e-21"),
        (dict(cutoff=float("nan")), "cutoff: expected a number from 1e-20 to 1e20, got -?nan"),
        (dict(cutoff=float("inf")), "cutoff: expected a number from 1e-20 to 1e20, got inf"),
        (dict(envelope_exponent=-1), "envelope_exponent: expected 0 .. 63, got -1"),
    ],
)
def test_errors(changes, message):
    given = dict(distance=torch.ones(4, **DOUBLE), frequency=torch.ones(K, **DOUBLE), roots=ROOTS, scale=SCALE)
    raises(message, ops.radial_basis, given | dict(cutoff=5.0, envelope_exponent=5), changes)


def test_too_many_radial_functions():
    many = torch.ones(2, 17, **DOUBLE)
    with pytest.raises(RuntimeError, match="frequency: expected 1 .. 16 radial functions, got 17"):
        ops.radial_basis(torch.ones(4, **DOUBLE), many[0], many, many, 5.0, 5)


def test_bad_cotangents():
    compiled = torch.ops.spherenet_fast
    radial, two, three, five = (torch.ones(12, *shape, **DOUBLE) for shape in ((L, K), (2,), (3,), (5,)))
    basis = [torch.ones(12, **DOUBLE), torch.ones(K, **DOUBLE), ROOTS, SCALE, 5.0, 5]
    with pytest.raises(RuntimeError, match=r"grad_bessel: expected shape \[12, 2\], got \[12, 3\]"):
        compiled.radial_basis_backward(three, radial, *basis)
    with pytest.raises(RuntimeError, match=r"grad_radial: expected shape \[12, 3, 2\], got \[12, 5\]"):
        compiled.radial_basis_backward(two, five, *basis)
    with pytest.raises(RuntimeError, match=r"grad_grad_frequency: expected shape \[2\], got \[3\]"):
        compiled.radial_basis_double_backward(None, three[0], two, radial, *basis)


# ---- the CUDA kernel, run on the CPU ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, tolerance", PRECISIONS)
@pytest.mark.parametrize("num_spherical, num_radial", [(7, 6), (1, 1), (1, 16), (2, 4), (8, 1), (8, 16)])
def test_cuda(cuda_operators, num_spherical, num_radial, dtype, tolerance):
    given = cast(inputs(num_radial, 600), dtype)
    compare(cuda_operators, given, num_spherical, num_radial, EXPONENT, tolerance)


@pytest.mark.parametrize("num_edges", [0, 1, 31, 32, 33, 511, 512, 513, 1025])
def test_cuda_of_every_number_of_edges(cuda_operators, num_edges):
    compare(cuda_operators, inputs(4, num_edges), 3, 4, EXPONENT, 1e-11)


@pytest.mark.parametrize("exponent", [0, 1, 8])
def test_cuda_with_any_envelope(cuda_operators, exponent):
    compare(cuda_operators, inputs(4, 600), 2, 4, exponent, 1e-11)


@pytest.mark.parametrize("absent", [0, 1])
def test_cuda_without_one_tangent(cuda_operators, absent):
    """A null tangent is the same as zeros."""
    given = inputs(4, 70)
    tangents = [torch.ones_like(value) for value in given.values()]
    tangents[absent].zero_()
    grads = torch.ones(70, 4).double(), torch.ones(70, 3, 4).double()

    def double_backward():
        arguments = *tangents, *grads, *given.values(), *bessel_constants(3, 4), CUTOFF, EXPONENT
        return cuda_operators.compiled.radial_basis_double_backward(*arguments)

    with_zeros = double_backward()
    tangents[absent] = None
    assert all(torch.equal(a, b) for a, b in zip(double_backward(), with_zeros, strict=True))
