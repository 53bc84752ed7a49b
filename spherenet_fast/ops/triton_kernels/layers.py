"""What a layer is made of, in Triton: its product, its activation, what it is combined with, and their derivatives."""

import triton
import triton.language as tl

FEW = tl.constexpr(16)  # inner widths up to it are no matter for tensor cores
MULTIPLY = tl.constexpr(2)


@triton.jit
def product(
    x, weight, at, rows, columns, inner, outer, there, BACK: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr
):
    """Columns of x weight^T, or of x weight where BACK. x [rows, inner]; weight [outer, inner], BACK [inner, outer].

    0 where not `there`.
    """
    total = tl.zeros((at.shape[0], columns.shape[0]), tl.float32)
    inside, wanted = at < rows, columns < outer
    first = at * inner
    across = 1 if BACK else inner  # from a column to the next
    along = outer if BACK else 1
    if there & (inner <= FEW):
        for k in range(inner):
            of_row = tl.load(x + first + k, mask=inside, other=0.0)
            of_column = tl.load(weight + columns * across + k * along, mask=wanted, other=0.0)
            total += of_row[:, None] * of_column[None, :].to(tl.float32)
    if there & (inner > FEW):
        for start in range(0, inner, BLOCK):
            k = start + tl.arange(0, BLOCK)
            a = tl.load(x + first[:, None] + k[None, :], mask=inside[:, None] & (k < inner)[None, :], other=0.0)
            b = tl.load(
                weight + k[:, None] * along + columns[None, :] * across,
                mask=(k < inner)[:, None] & wanted[None, :],
                other=0.0,
            )
            total = tl.dot(a.to(b.dtype), b, total, input_precision=PRECISION)
    return total


@triton.jit
def activation(h, with_silu):
    """act(h) and its first two derivatives, act being silu or nothing."""
    small = tl.exp(-tl.abs(h))
    large = 1 / (1 + small)
    small = small * large
    value = tl.where(h < 0, small, large)
    slope = h * (small * large)
    curvature = small * large * (h * (1 - 2 * value) + 2)
    slope += value
    return (
        tl.where(with_silu, h * value, h),
        tl.where(with_silu, slope, 1.0),
        tl.where(with_silu, curvature, 0.0),
    )


@triton.jit
def combined(value, other, combine):
    """combine: 0 (other is 0), 1 (sum), 2 (product)."""
    return tl.where(combine == MULTIPLY, value * other, value + other)


@triton.jit
def through_activation(grad, h, factor, with_silu, combine):
    """From the cotangent of a value to those of h and of what it was combined with."""
    value, slope, _ = activation(h, with_silu)
    of_h = grad * slope
    multiplied = combine == MULTIPLY
    return tl.where(multiplied, of_h * factor, of_h), tl.where(multiplied, grad * value, grad)
