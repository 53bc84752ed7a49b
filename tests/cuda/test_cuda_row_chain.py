"""Row chains on a GPU, of the model's sizes, against the layers in float64 on the CPU. Everything is marked cuda."""

import pytest
import torch
from gpu import DEVICE, needs_gpu
from operator_cases import assert_close, cast, derivatives

from spherenet_fast import ops
from spherenet_fast.ops import reference, triton_kernels

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("full_precision")]


def inputs(rows):
    generator = torch.Generator().manual_seed(rows)
    sizes = dict(x=(rows, 128), bessel=(rows, 6), message=(rows, 64), a=(128, 128), up=(128, 64), b=(128, 128))
    sizes |= dict(c=(128, 128), radial=(128, 6))
    given = {name: torch.randn(size, generator=generator, dtype=torch.float64) for name, size in sizes.items()}
    given = {name: value / (value.shape[1] ** 0.5 if len(value) in (64, 128) else 1) for name, value in given.items()}
    return cast(given | {"bias": torch.randn(128, generator=generator)}, torch.float32)


def block(operators):
    """What follows the gated sum in a block of the model, with fewer layers."""

    def run(x, bessel, message, a, up, b, c, radial, bias):
        def chain(x, bessel, message):
            h = operators.linear_silu(x, a, bias)
            h = h + operators.linear_silu(message, up)
            h = h + operators.linear_silu(operators.linear_silu(h, b, bias), c)
            return h, operators.radial_filter(h, bessel, radial)

        return operators.row_chain(chain, x, bessel, message)

    return run


@pytest.mark.parametrize("rows", [1, 420, 3360, 9162, 20000])  # tiles of 16, 32 and 64 rows, and parts of them
def test_values_and_derivatives(rows):
    given = inputs(rows)
    found = derivatives(block(ops), cast(given, torch.float32, DEVICE))
    # five layers of 128 products rounded to 6e-8, and as much again for each derivative
    assert_close(found, derivatives(block(reference), cast(given, torch.float64)), 1e-5)


def test_values_keep_float32():
    given = inputs(9162)
    with torch.no_grad():
        found = block(ops)(*cast(given, torch.float32, DEVICE).values())
        expected = block(reference)(*cast(given, torch.float64).values())
    for value, exact in zip(found, expected, strict=True):
        # products of three TF32 numbers each leave 2^-21 of a factor; sums of 128
        assert_close({"value": value}, {"value": exact}, 1e-6)


@needs_gpu
@pytest.mark.skipif(not triton_kernels.AVAILABLE, reason="without Triton layers are torch's")
def test_a_chain_is_one_kernel():
    given = cast(inputs(9162), torch.float32, DEVICE)
    with torch.no_grad():
        block(ops)(*given.values())
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            block(ops)(*given.values())
    assert [event.count for event in profile.key_averages() if "forward" in event.key] == [1]


def test_tf32_where_torch_may_use_it():
    given = inputs(3360)
    torch.set_float32_matmul_precision("high")
    found = derivatives(block(ops), cast(given, torch.float32, DEVICE))
    # TF32 rounds to 5e-4
    assert_close(found, derivatives(block(reference), cast(given, torch.float64)), 1e-2)


def test_under_autocast():
    given = inputs(3360)
    with torch.autocast(DEVICE, torch.bfloat16):
        found = block(ops)(*cast(given, torch.float32, DEVICE).values())
    expected = block(reference)(*cast(given, torch.float64).values())
    for value, exact in zip(found, expected, strict=True):
        # bfloat16 has 8 bits, 4e-3, five layers deep
        assert_close({"value": value}, {"value": exact}, 0.05)


def test_the_same_bits_on_every_run():
    given = cast(inputs(9162), torch.float32, DEVICE)
    first = derivatives(block(ops), given)
    for _ in range(3):
        again = derivatives(block(ops), given)
        assert all(torch.equal(again[name], first[name]) for name in first)
