"""The shapes of the kernels for row chains: a short list, of which the sizes of a call choose, without trying any."""

from typing import NamedTuple

import torch
from torch import Tensor

WIDEST = 256  # of a layer: what a chain takes
PART_ROWS = 128  # rows of a part of a sum, at least, for each of which there are sums of its own
_PROCESSORS = 128  # about as many as the GPUs have that matter: tiles are small enough for all of them


class Shape(NamedTuple):
    """Rows of a tile, its columns and the numbers summed at once in a product, warps, stages of its loads."""

    rows: int
    columns: int
    inner: int
    warps: int
    stages: int
    block: int = 64  # of the gradient of a weight
    elements: int = 1024  # of a sum over parts

    def of_chain(self) -> dict[str, int]:
        return dict(
            TILE=self.rows, COLUMNS=self.columns, BLOCK=self.inner, num_warps=self.warps, num_stages=self.stages
        )

    def of_sums(self) -> dict[str, int]:
        return dict(TILE=32, BLOCK=self.block, num_warps=4, num_stages=self.stages)


SHAPES = (
    Shape(rows=64, columns=128, inner=32, warps=8, stages=3),
    Shape(rows=32, columns=128, inner=32, warps=4, stages=3),
    Shape(rows=16, columns=64, inner=32, warps=4, stages=3),
)


def shape_for(num_rows: int, widest: int) -> Shape:
    """The one with the largest tiles that still are enough for all processors; the last one where none are."""
    return next((shape for shape in SHAPES if num_rows >= shape.rows * _PROCESSORS), SHAPES[-1])


def precision_of(weight: Tensor) -> str:
    """How products of float32 are made: three of TF32, which keeps 1e-6, or one where torch's own are rounded to it."""
    if weight.dtype != torch.float32:
        return "ieee"  # one product of lower precision; there is no choice
    return "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"
