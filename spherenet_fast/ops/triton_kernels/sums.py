"""Gradients of weights and biases of a row chain in Triton: sums over rows, part by part and then over the parts.

Two kernels for all layers of a chain. Nothing is added to what another program has written, so that the bits are the
same on every run.
"""

import triton
import triton.language as tl

from .tables import pick, places


@triton.jit
def owner(number, FIRST: tl.constexpr):
    """Whose program this is, FIRST being the first program of each."""
    found = 0
    for candidate in tl.static_range(1, len(FIRST)):
        found += (number >= FIRST[candidate]).to(tl.int32)
    return found


@triton.jit(do_not_specialize=["rows", "part_rows"])
def outer_sums(
    grads, sources, sums, rows, part_rows, INNER: tl.constexpr, OUTER: tl.constexpr, FIRST: tl.constexpr,
    WEIGHT_AT: tl.constexpr, BIAS_AT: tl.constexpr, HAS_BIAS: tl.constexpr, TOTAL: tl.constexpr, UNIT: tl.constexpr,
    TILE: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """sums [parts, TOTAL]: over a part of the rows grads^T sources of each step, from WEIGHT_AT on, and the column sums
    of grads, from BIAS_AT on. Program (number, part): one block [BLOCK, BLOCK] of one step."""
    number, part = tl.program_id(0), tl.program_id(1)
    step = owner(number, FIRST)
    inner, outer = pick(INNER, step) * UNIT, pick(OUTER, step) * UNIT
    number -= pick(FIRST, step)
    across = tl.cdiv(inner, BLOCK)
    n = number // across * BLOCK + tl.arange(0, BLOCK)
    k = number % across * BLOCK + tl.arange(0, BLOCK)
    grad, source = tl.multiple_of(pick(grads, step), 4 * UNIT), tl.multiple_of(pick(sources, step), 4 * UNIT)
    total = tl.zeros((BLOCK, BLOCK), tl.float32)
    column_sums = tl.zeros((BLOCK,), tl.float32)
    end = tl.minimum(part * part_rows + part_rows, rows)
    for start in range(part * part_rows, end, TILE):
        at = start + tl.arange(0, TILE)
        place, inside = places(at, n, end, outer)
        a = tl.load(grad + place, mask=inside, other=0.0)
        place, inside = places(at, k, end, inner)
        b = tl.load(source + place, mask=inside, other=0.0)
        total = tl.dot(tl.trans(a).to(TYPE), b.to(TYPE), total, input_precision=PRECISION)
        column_sums += tl.sum(a, 0)
    to = sums + part * TOTAL
    inside = (n < outer)[:, None] & (k < inner)[None, :]
    tl.store(to + pick(WEIGHT_AT, step) + n[:, None] * inner + k[None, :], total, mask=inside)
    is_first = 1 - tl.minimum(number % across, 1)
    tl.store(to + pick(BIAS_AT, step) + n, column_sums, mask=n < outer * pick(HAS_BIAS, step) * is_first)


@triton.jit(do_not_specialize=["parts"])
def add_parts(
    sums, results, parts, SIZES: tl.constexpr, AT: tl.constexpr, FIRST: tl.constexpr, TOTAL: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """results[r] [SIZES[r]]: the sum over the parts, in their order, of sums [parts, TOTAL] from AT[r] on."""
    number = tl.program_id(0)
    result = owner(number, FIRST)
    at = (number - pick(FIRST, result)) * BLOCK + tl.arange(0, BLOCK)
    inside = at < pick(SIZES, result)
    total = tl.zeros((BLOCK,), tl.float32)
    for part in range(parts):
        total += tl.load(sums + part * TOTAL + pick(AT, result) + at, mask=inside, other=0.0)
    tl.store(pick(results, result) + at, total, mask=inside)
