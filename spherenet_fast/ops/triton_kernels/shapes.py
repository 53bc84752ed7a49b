"""The shapes of the kernels for row chains: a short list, of which the sizes of a call choose, without trying any."""

from typing import NamedTuple

import torch
from torch import Tensor

WIDEST = 256  # of a layer: what a chain takes
PART_ROWS = 128  # rows of a part of a sum, at least, for each of which there are sums of its own
_PROCESSORS = 132  # of an H100 or H200
_WEIGHTS_IN_ROWS = 16  # what a tile takes for the weights, in the time of rows: a guess, to be measured
FUSION = {"enable_fp_fusion": True}  # multiply-adds, in every version of Triton


class Shape(NamedTuple):
    """Rows of a tile, columns of it at a time, fewer in the double backward, which has more at hand, numbers summed at
    once in a product, warps, stages of loads."""

    rows: int
    columns: int
    second_columns: int
    inner: int
    warps: int
    stages: int
    block: int = 64  # of the gradient of a weight
    elements: int = 1024  # of a sum over parts

    def of_passes(self) -> dict[str, int]:
        options = dict(num_warps=self.warps, num_stages=self.stages) | FUSION
        return dict(TILE=self.rows, COLUMNS=self.columns, BLOCK=self.inner) | options

    def of_sums(self) -> dict[str, int]:
        return dict(TILE=32, BLOCK=self.block, num_warps=4, num_stages=self.stages) | FUSION


SHAPES = (
    Shape(rows=64, columns=64, second_columns=32, inner=32, warps=8, stages=3),
    Shape(rows=32, columns=64, second_columns=32, inner=32, warps=4, stages=3),
    Shape(rows=16, columns=64, second_columns=32, inner=32, warps=4, stages=3),
)


def shape_for(num_rows: int) -> Shape:
    """The one whose tiles take the least time on the processor that has the most of them."""

    def time(shape: Shape) -> int:
        tiles = -(-num_rows // shape.rows)
        return -(-tiles // _PROCESSORS) * (shape.rows + _WEIGHTS_IN_ROWS)

    return min(SHAPES, key=time)


def precision_of(weight: Tensor) -> str:
    """How products of float32 are made: three of TF32, which keeps 1e-6, or one where torch's own are rounded to it."""
    if weight.dtype != torch.float32:
        return "ieee"  # one product of lower precision; there is no choice
    return "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"
