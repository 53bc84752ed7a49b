"""The fused activation and both its derivatives against PyTorch's."""

import math

import pytest
import torch
from operator_cases import assert_close, cast, derivatives, strided

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


def assert_far_away(silu, dtype):
    """Values and both derivatives where exp overflows or vanishes."""
    x = torch.tensor([-1000.0, -100.0, 100.0, 1000.0, torch.nan], dtype=dtype, requires_grad=True)
    value = silu(x)
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    assert torch.equal(value[2:4], x[2:4]) and (slope[2:4] == 1).all()
    for vanishing in (value[:2], slope[:2], curvature[:4]):
        assert (vanishing.abs() < 1e-30).all()  # exp(-87) = 1e-38 times 1000 at the most
    assert value[4].isnan() and slope[4].isnan()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_far_away(dtype):
    assert_far_away(ops.silu, dtype)


def test_strided_inputs():
    given = {"x": torch.randn(6, 9).double()}
    expected, found = derivatives(ops.silu, given), derivatives(ops.silu, {"x": strided(given["x"])})
    assert all(torch.equal(found[name], expected[name]) for name in expected)


# ---- the CUDA kernel, run on the CPU ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-11), (torch.float32, 1e-5)])
@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 1023, 1024, 1025, 2100])
def test_cuda(cuda_operators, size, dtype, tolerance):
    given = cast({"x": torch.linspace(-8.2, 8.3, size, dtype=torch.float64)}, dtype)
    expected = derivatives(reference.silu, cast(given, torch.float64))
    assert_close(derivatives(cuda_operators.silu, given), expected, tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_cuda_far_away(cuda_operators, dtype):
    assert_far_away(cuda_operators.silu, dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_cuda_of_numbers_at_any_address(cuda_operators, dtype):
    x = torch.linspace(-3, 3, 100).to(dtype)
    assert torch.equal(cuda_operators.silu(x[1:]), cuda_operators.silu(x)[1:])
