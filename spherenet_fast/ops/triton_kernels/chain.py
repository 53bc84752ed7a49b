"""A row chain's tensors as Triton's kernels take them: checked, numbered, with memory for what is between."""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import tables
from .shapes import precision_of, shape_for

TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}  # of weights
MULTIPLY = 2  # how a step meets `other`


class Step(NamedTuple):
    source: int
    silu: int
    combine: int
    other: int
    is_result: int


class Chain:
    """The inputs of a call, checked and contiguous. Values are numbered: the inputs first, then those of the steps."""

    def __init__(self, rows: list[Tensor], weights: list[Tensor], biases: list[Tensor], numbers: list[int]):
        self.rows, self.biases = [row.contiguous() for row in rows], [bias.contiguous() for bias in biases]
        self.weights = [weight.contiguous() for weight in weights]
        self.steps = [Step(*numbers[first : first + 5]) for first in range(0, len(numbers), 5)]
        self.inputs, self.num_rows = len(rows), rows[0].shape[0]
        self.widths = [row.shape[-1] for row in rows]
        for k, row in enumerate(rows):
            _expect(f"rows[{k}]", row, (self.num_rows, self.widths[k]), rows[0], torch.float32)
        for k, (step, weight, bias) in enumerate(zip(self.steps, weights, biases, strict=True)):
            _expect(f"weights[{k}]", weight, (weight.shape[0], self.widths[step.source]), rows[0], weights[0].dtype)
            _expect(f"biases[{k}]", bias, (weight.shape[0],) if bias.numel() else (0,), rows[0], torch.float32)
            self.widths.append(weight.shape[0])
            if step.other >= 0 and self.widths[step.other] != self.widths[-1]:
                raise RuntimeError(
                    f"steps: expected two of one width in step {k}, got {self.widths[-1]} and {self.widths[step.other]}"
                )
        self.shape = shape_for(self.num_rows)

    def new(self, value: int) -> Tensor:
        return self.rows[0].new_empty(self.num_rows, self.widths[value])

    def width(self, step: int) -> int:
        return self.widths[self.inputs + step]

    def read(self, name: str, tensors: list[Tensor], first: int = 0) -> list[Tensor | None]:
        """Tensors of values from number `first` on, None for those that are absent."""
        for k, tensor in enumerate(tensors):
            if tensor.numel():
                _expect(f"{name}[{k}]", tensor, (self.num_rows, self.widths[first + k]), self.rows[0], torch.float32)
        return [tensor.contiguous() if tensor.numel() else None for tensor in tensors]

    def constants(self, *arrays) -> dict:
        """What every kernel of a chain is told. arrays: all that it reads and writes, in lists, None for what is
        absent, whose alignment tells how many numbers are loaded at once."""
        there = [tensor for tensors in arrays for tensor in tensors if tensor is not None]
        unit = math.gcd(4, *self.widths) if all(tensor.data_ptr() % 16 == 0 for tensor in there) else 1
        return dict(
            INNER=tuple(self.widths[step.source] // unit for step in self.steps),
            OUTER=tuple(self.width(k) // unit for k in range(len(self.steps))),
            SILU=tuple(step.silu for step in self.steps),
            COMBINE=tuple(step.combine for step in self.steps),
            UNIT=unit,
            PRECISION=precision_of(self.weights[0]),
            TYPE=TYPES[self.weights[0].dtype],
            **self.shape.of_passes(),
        )

    def launch(self, kernel, arrays: dict[str, list[Tensor | None]], **constants) -> None:
        """Runs a kernel over all tiles of rows. arrays: by the names of tables.py one for each step, None for what is
        absent. constants: those of this kernel, and of all where they are others."""
        constants, anything = self.constants(*arrays.values()) | constants, self.rows[0]
        given = [anything if tensor is None else tensor for tensors in arrays.values() for tensor in tensors]
        programs = triton.cdiv(self.num_rows, constants["TILE"])
        own = torch.empty(programs, len(tables.NAMES), len(self.steps), dtype=torch.int64, device=anything.device)
        fields = tuple(map(tables.NAMES.index, arrays))
        with torch.cuda.device_of(anything):
            kernel[(programs,)](tuple(given), own, self.num_rows, FIELDS=fields, **constants)

    def others(self, values: list[Tensor | None]) -> list[Tensor | None]:
        return [None if step.other < 0 else values[step.other] for step in self.steps]

    def sources(self, values: list[Tensor | None]) -> list[Tensor | None]:
        return [values[step.source] for step in self.steps]

    def values_to_find(self, known: list[Tensor | None], needed: set[int]) -> tuple[list[Tensor | None], list[int]]:
        """Memory of all values that are at hand or needed, and for each step whether its value is to be found."""
        for k in range(len(self.steps) - 1, -1, -1):
            if self.inputs + k in needed and known[k] is None and self.steps[k].other >= 0:
                needed.add(self.steps[k].other)
        find = [int(self.inputs + k in needed and known[k] is None) for k in range(len(self.steps))]
        made = [self.new(self.inputs + k) if yes else known[k] for k, yes in enumerate(find)]
        return [*self.rows, *made], find


def _expect(name: str, tensor: Tensor, shape: tuple[int, ...], first: Tensor, dtype: torch.dtype) -> None:
    if tuple(tensor.shape) != shape:
        raise RuntimeError(f"{name}: expected shape {list(shape)}, got {list(tensor.shape)}")
    if tensor.dtype != dtype or tensor.device != first.device:
        raise RuntimeError(f"{name}: expected {dtype} on {first.device}, got {tensor.dtype} on {tensor.device}")


class Spare:
    """Arrays [rows, width] that are handed out again once nobody needs what is in them."""

    def __init__(self, chain: Chain):
        self.chain, self.free = chain, {}

    def take(self, value: int) -> Tensor:
        known = self.free.get(self.chain.widths[value])
        return known.pop() if known else self.chain.new(value)

    def give(self, array: Tensor) -> None:
        self.free.setdefault(array.shape[1], []).append(array)


class Sums:
    """Where the cotangents of values are summed: for each contribution its array, what is added, and how."""

    def __init__(self, chain: Chain, given: list[Tensor | None], asked: dict[int, Tensor | None]):
        """given: cotangents by value; asked: arrays of those that are results, None for those nobody asks for."""
        self.chain, self.so_far, self.asked, self.own = chain, list(given), asked, set()

    def add(self, value: int) -> tuple[Tensor | None, Tensor | None, int]:
        """The array, what there is so far, and 0 (not wanted), 1 (the first one) or 2 (to be added)."""
        if value < 0 or (value in self.asked and self.asked[value] is None):
            return None, None, 0
        before = self.so_far[value]
        if value not in self.own:
            self.so_far[value] = self.asked[value] if value in self.asked else self.chain.new(value)
            self.own.add(value)
        return self.so_far[value], before, 1 if before is None else 2


def present(tensors: list[Tensor | None]) -> tuple[int, ...]:
    return tuple(int(tensor is not None and tensor.numel() > 0) for tensor in tensors)


def or_empty(tensors: list[Tensor | None], like: Tensor) -> list[Tensor]:
    empty = like.new_empty(0)
    return [empty if tensor is None else tensor for tensor in tensors]
