"""The fused activation and both its derivatives against PyTorch's."""

import math

import pytest
import torch
from operator_cases import assert_close, assert_silu_far_away, cast, derivatives, strided

from spherenet_fast import ops
from spherenet_fast.ops import reference

# number by number: a few roundings, 1e-16 and 6e-8
PRECISIONS = [(torch.float64, 1e-14), (torch.float32, 2e-6)]


@pytest.mark.parametrize("dtype, tolerance", PRECISIONS)
@pytest.mark.parametrize("shape", [(0,), (), (1,), (7, 5), (3, 4, 5), (70_000,)])
def test_every_size(shape, dtype, tolerance, instruction_set):
    x = torch.linspace(-3.2, 3.3, math.prod(shape), dtype=torch.float64).reshape(shape)
    given = cast({"x": x}, dtype)
    found = derivatives(ops.silu, given)
    assert all(tensor.dtype == dtype for tensor in found.values())
    assert_close(found, derivatives(reference.silu, cast(given, torch.float64)), tolerance)


@pytest.mark.parametrize("dtype, tolerance", PRECISIONS)
def test_every_number(dtype, tolerance, instruction_set):
    """Values and slopes far out on both sides, and near 0, have all their digits."""
    x = torch.cat([torch.linspace(-86, 86, 1001), torch.logspace(-30, 0, 101), -torch.logspace(-30, 0, 101)])
    x = x.to(dtype).requires_grad_()
    exact = x.detach().double().requires_grad_()
    value, expected = ops.silu(x), reference.silu(exact)
    torch.testing.assert_close(value.double(), expected, rtol=tolerance, atol=0)
    (slope,) = torch.autograd.grad(value.sum(), x)
    (expected,) = torch.autograd.grad(expected.sum(), exact)
    # the slope is 0 near -1.278: there the terms that cancel are 0.2
    torch.testing.assert_close(slope.double(), expected, rtol=2 * tolerance, atol=tolerance / 10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_far_away(dtype):
    assert_silu_far_away(ops.silu, dtype)


def test_strided_inputs():
    given = {"x": torch.randn(6, 9).double()}
    expected, found = derivatives(ops.silu, given), derivatives(ops.silu, {"x": strided(given["x"])})
    assert all(torch.equal(found[name], expected[name]) for name in expected)
