"""Where the kernels of row chains find a step's arrays, and how they read and write them.

`arrays` are pointers to arrays [rows, width], weights [outer, inner] as of `linear`, and biases [outer]: for each of
the fields FIELDS one for every step, which is never read or written where a flag says that there is none. A program
writes them to memory of its own first, so that a loop over the steps finds them there: choosing among them all would
keep them all in registers. Widths are counted in UNIT, which divides all of them, and all arrays are aligned to so many
numbers: it tells the compiler how many one instruction may load.
"""

import triton
import triton.language as tl

NAMES = (
    "weight", "bias", "source", "other", "value", "h", "grad", "grad_h", "kept", "of_h", "of_other", "other_so_far",
    "of_source", "source_so_far", "tangent", "of_weight", "source_tangent", "other_tangent", "factor", "factor_so_far",
)  # fmt: skip
NUMBER = tl.constexpr(len(NAMES))
WEIGHT, BIAS, SOURCE, OTHER, VALUE, H, GRAD, GRAD_H, KEPT, OF_H, OF_OTHER, OTHER_SO_FAR = map(tl.constexpr, range(12))
OF_SOURCE, SOURCE_SO_FAR, TANGENT, OF_WEIGHT, SOURCE_TANGENT, OTHER_TANGENT, FACTOR, FACTOR_SO_FAR = map(
    tl.constexpr, range(12, 20)
)


@triton.jit
def pick(choices, number):
    """choices[number] of a tuple of numbers or pointers, where the number is known at run time."""
    chosen = choices[0]
    for candidate in tl.static_range(1, len(choices)):
        chosen = tl.where(number == candidate, choices[candidate], chosen)
    return chosen


@triton.jit
def written_down(arrays, tables, FIELDS: tl.constexpr, STEPS: tl.constexpr):
    """The program's own table [STEPS, NUMBER] of pointers."""
    table = tables + tl.program_id(0) * (STEPS * NUMBER)
    for place in tl.static_range(len(arrays)):
        tl.store(table + (place % STEPS) * NUMBER + FIELDS[place // STEPS], arrays[place].to(tl.int64))
    tl.debug_barrier()
    return table


@triton.jit
def array(entry, FIELD: tl.constexpr, UNIT: tl.constexpr, TYPE: tl.constexpr = tl.float32):
    """The pointer in a step's entry [NUMBER] of the table."""
    address = tl.load(entry + FIELD)
    return tl.multiple_of(address.to(tl.pointer_type(TYPE)), TYPE.primitive_bitwidth // 8 * UNIT)


@triton.jit
def places(at, columns, rows, width):
    """Where the elements [at, columns] of an array [rows, width] are, and whether they are inside."""
    return at[:, None] * width + columns[None, :], (at < rows)[:, None] & (columns < width)[None, :]


@triton.jit
def only_if(flag, inside, at, rows):
    """`inside` where flag is 1, nothing where it is 0."""
    return inside & (at < rows * flag)[:, None]


@triton.jit
def read(entry, FIELD: tl.constexpr, place, inside, UNIT: tl.constexpr):
    return tl.load(array(entry, FIELD, UNIT) + place, mask=inside, other=0.0)


@triton.jit
def write(entry, FIELD: tl.constexpr, place, value, inside, UNIT: tl.constexpr):
    tl.store(array(entry, FIELD, UNIT) + place, value, mask=inside)
