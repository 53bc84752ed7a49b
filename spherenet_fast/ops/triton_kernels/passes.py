"""Row chains in Triton: a program takes a tile of rows through all layers of a chain, one after the other.

What a layer hands on lies in memory that this program alone reads and writes, between barriers, and is read again
while it is in the caches. Arguments in capitals are compile-time constants, tuples of them have one entry for each step
of the chain: INNER and OUTER, the widths of its weight, SILU, COMBINE, and flags. TO_...: how there is a contribution
to a cotangent, 0 for none, 1 for the first one, 2 for one that is added to what there is `so far`.
"""

import triton
import triton.language as tl

from .layers import MULTIPLY, activation, combined, product, through_activation
from .tables import (
    BIAS,
    FACTOR,
    FACTOR_SO_FAR,
    GRAD,
    GRAD_H,
    KEPT,
    NUMBER,
    OF_H,
    OF_OTHER,
    OF_SOURCE,
    OF_WEIGHT,
    OTHER,
    OTHER_SO_FAR,
    OTHER_TANGENT,
    SOURCE,
    SOURCE_SO_FAR,
    SOURCE_TANGENT,
    TANGENT,
    VALUE,
    WEIGHT,
    H,
    array,
    only_if,
    pick,
    places,
    read,
    write,
    written_down,
)  # fmt: skip


@triton.jit(do_not_specialize=["rows"])
def forward(
    arrays, tables, rows, FIELDS: tl.constexpr, TYPE: tl.constexpr, INNER: tl.constexpr, OUTER: tl.constexpr,
    SILU: tl.constexpr, COMBINE: tl.constexpr, HAS_BIAS: tl.constexpr, SAVE: tl.constexpr, UNIT: tl.constexpr,
    TILE: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """h = source weight^T + bias, value = act(h), met by `other`."""
    table = written_down(arrays, tables, FIELDS, len(INNER))
    at = tl.program_id(0) * TILE + tl.arange(0, TILE)
    for step in range(len(INNER)):
        entry = table + step * NUMBER
        inner, outer, combine = pick(INNER, step) * UNIT, pick(OUTER, step) * UNIT, pick(COMBINE, step)
        x, weight = array(entry, SOURCE, UNIT), array(entry, WEIGHT, UNIT, TYPE)
        for start in range(0, outer, COLUMNS):
            columns = start + tl.arange(0, COLUMNS)
            place, inside = places(at, columns, rows, outer)
            h = product(x, weight, at, rows, columns, inner, outer, True, False, BLOCK, PRECISION)
            has_bias = columns < outer * pick(HAS_BIAS, step)
            h += tl.load(array(entry, BIAS, 1) + columns, mask=has_bias, other=0.0)[None, :]
            if SAVE:
                write(entry, H, place, h, inside, UNIT)
            value, _, _ = activation(h, pick(SILU, step) != 0)
            other = read(entry, OTHER, place, only_if(tl.minimum(combine, 1), inside, at, rows), UNIT)
            write(entry, VALUE, place, combined(value, other, combine), inside, UNIT)
        tl.debug_barrier()


@triton.jit
def find_values(
    at, rows, table, OUTER: tl.constexpr, SILU: tl.constexpr, COMBINE: tl.constexpr, FIND: tl.constexpr,
    UNIT: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The values of the steps in FIND, from h."""
    for step in range(len(OUTER)):
        if pick(FIND, step) != 0:
            entry = table + step * NUMBER
            outer, combine = pick(OUTER, step) * UNIT, pick(COMBINE, step)
            for start in range(0, outer, COLUMNS):
                place, inside = places(at, start + tl.arange(0, COLUMNS), rows, outer)
                value, _, _ = activation(read(entry, H, place, inside, UNIT), pick(SILU, step) != 0)
                other = read(entry, OTHER, place, only_if(tl.minimum(combine, 1), inside, at, rows), UNIT)
                write(entry, VALUE, place, combined(value, other, combine), inside, UNIT)
            tl.debug_barrier()


@triton.jit(do_not_specialize=["rows"])
def backward(
    arrays, tables, rows, FIELDS: tl.constexpr, TYPE: tl.constexpr, INNER: tl.constexpr, OUTER: tl.constexpr,
    SILU: tl.constexpr, COMBINE: tl.constexpr, FIND: tl.constexpr, ACTIVE: tl.constexpr, HAS_GRAD: tl.constexpr,
    HAS_GRAD_H: tl.constexpr, TO_OTHER: tl.constexpr, TO_SOURCE: tl.constexpr, KEEP: tl.constexpr, UNIT: tl.constexpr,
    TILE: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """From the last step to the first, the cotangents of h (`of_h`) and with them of what the step took."""
    table = written_down(arrays, tables, FIELDS, len(INNER))
    at = tl.program_id(0) * TILE + tl.arange(0, TILE)
    find_values(at, rows, table, OUTER, SILU, COMBINE, FIND, UNIT, COLUMNS // 2)
    for number in range(len(INNER)):
        step = len(INNER) - 1 - number
        if pick(ACTIVE, step) != 0:
            entry = table + step * NUMBER
            inner, outer, combine = pick(INNER, step) * UNIT, pick(OUTER, step) * UNIT, pick(COMBINE, step)
            to_other, to_source = pick(TO_OTHER, step), pick(TO_SOURCE, step)
            for start in range(0, outer, COLUMNS // 2):  # more arrays at a time than the product has
                place, inside = places(at, start + tl.arange(0, COLUMNS // 2), rows, outer)
                grad = read(entry, GRAD, place, only_if(pick(HAS_GRAD, step), inside, at, rows), UNIT)
                if KEEP:
                    write(entry, KEPT, place, grad, inside, UNIT)
                h = read(entry, H, place, inside, UNIT)
                factor = read(entry, OTHER, place, only_if(combine // MULTIPLY, inside, at, rows), UNIT)
                of_h, of_other = through_activation(grad, h, factor, pick(SILU, step) != 0, combine)
                of_other += read(entry, OTHER_SO_FAR, place, only_if(to_other // 2, inside, at, rows), UNIT)
                write(entry, OF_OTHER, place, of_other, only_if(tl.minimum(to_other, 1), inside, at, rows), UNIT)
                of_h += read(entry, GRAD_H, place, only_if(pick(HAS_GRAD_H, step), inside, at, rows), UNIT)
                write(entry, OF_H, place, of_h, inside, UNIT)
            tl.debug_barrier()
            if to_source != 0:
                x, weight = array(entry, OF_H, UNIT), array(entry, WEIGHT, UNIT, TYPE)
                for start in range(0, inner, COLUMNS):
                    columns = start + tl.arange(0, COLUMNS)
                    place, inside = places(at, columns, rows, inner)
                    of_source = product(x, weight, at, rows, columns, outer, inner, True, True, BLOCK, PRECISION)
                    of_source += read(entry, SOURCE_SO_FAR, place, only_if(to_source // 2, inside, at, rows), UNIT)
                    write(entry, OF_SOURCE, place, of_source, inside, UNIT)
                tl.debug_barrier()


@triton.jit(do_not_specialize=["rows"])
def double_backward(
    arrays, tables, rows, FIELDS: tl.constexpr, TYPE: tl.constexpr, INNER: tl.constexpr, OUTER: tl.constexpr,
    SILU: tl.constexpr, COMBINE: tl.constexpr, FIND: tl.constexpr, MOVES: tl.constexpr, OTHER_MOVES: tl.constexpr,
    HAS_GRAD: tl.constexpr, WEIGHTED: tl.constexpr, TO_FACTOR: tl.constexpr, HOLDS: tl.constexpr,
    TO_OTHER: tl.constexpr, UNIT: tl.constexpr, TILE: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """On the way forward the tangents of all values, and with them the gradients for the cotangents, h and factors.

    What a factor has for a gradient then goes back through the operations that are no products: `grad_h` of those that
    HOLDS one. `of_weight` is what meets the tangents of the sources in the gradient of a weight.
    """
    table = written_down(arrays, tables, FIELDS, len(INNER))
    at = tl.program_id(0) * TILE + tl.arange(0, TILE)
    find_values(at, rows, table, OUTER, SILU, COMBINE, FIND, UNIT, COLUMNS)
    for step in range(len(INNER)):
        entry = table + step * NUMBER
        inner, outer, combine = pick(INNER, step) * UNIT, pick(OUTER, step) * UNIT, pick(COMBINE, step)
        moves, to_factor, multiplied = pick(MOVES, step) != 0, pick(TO_FACTOR, step), combine == MULTIPLY
        x, weight = array(entry, SOURCE_TANGENT, UNIT), array(entry, WEIGHT, UNIT, TYPE)
        for start in range(0, outer, COLUMNS):
            columns = start + tl.arange(0, COLUMNS)
            place, inside = places(at, columns, rows, outer)
            of_source = product(x, weight, at, rows, columns, inner, outer, moves, False, BLOCK, PRECISION)
            of_other = read(entry, OTHER_TANGENT, place, only_if(pick(OTHER_MOVES, step), inside, at, rows), UNIT)
            grad = read(entry, GRAD, place, only_if(pick(HAS_GRAD, step), inside, at, rows), UNIT)
            factor = read(entry, OTHER, place, only_if(combine // MULTIPLY, inside, at, rows), UNIT)
            value, slope, curvature = activation(read(entry, H, place, inside, UNIT), pick(SILU, step) != 0)
            first, second = grad * slope, grad * curvature * of_source
            of_factor = first * of_source
            of_factor += read(entry, FACTOR_SO_FAR, place, only_if(to_factor // 2, inside, at, rows), UNIT)
            write(entry, FACTOR, place, of_factor, only_if(tl.minimum(to_factor, 1), inside, at, rows), UNIT)
            tangent = slope * of_source
            tangent = tl.where(multiplied, tangent * factor + value * of_other, tangent + of_other)
            write(entry, TANGENT, place, tangent, inside, UNIT)
            second = tl.where(multiplied, second * factor + first * of_other, second)
            write(entry, OF_H, place, second, inside, UNIT)
            first = tl.where(multiplied, first * factor, first)
            write(entry, OF_WEIGHT, place, first, only_if(pick(WEIGHTED, step), inside, at, rows), UNIT)
        tl.debug_barrier()
    for number in range(len(INNER)):
        step = len(INNER) - 1 - number
        if pick(HOLDS, step) != 0:
            entry = table + step * NUMBER
            outer, combine, to_other = pick(OUTER, step) * UNIT, pick(COMBINE, step), pick(TO_OTHER, step)
            for start in range(0, outer, COLUMNS):
                place, inside = places(at, start + tl.arange(0, COLUMNS), rows, outer)
                grad, h = read(entry, GRAD_H, place, inside, UNIT), read(entry, H, place, inside, UNIT)
                factor = read(entry, OTHER, place, only_if(combine // MULTIPLY, inside, at, rows), UNIT)
                of_h, of_other = through_activation(grad, h, factor, pick(SILU, step) != 0, combine)
                of_other += read(entry, OTHER_SO_FAR, place, only_if(to_other // 2, inside, at, rows), UNIT)
                write(entry, OF_OTHER, place, of_other, only_if(tl.minimum(to_other, 1), inside, at, rows), UNIT)
                of_h += read(entry, OF_H, place, inside, UNIT)
                write(entry, OF_H, place, of_h, inside, UNIT)
            tl.debug_barrier()
