"""What SphereNet of DIG calls of the compiled packages torch_scatter and torch_sparse, by PyTorch alone.

Written from the documentation of the two packages; `dig_models` uses them where the packages are not installed.
"""

from types import SimpleNamespace

import torch
from torch import Tensor
from torch_geometric.utils import scatter as pyg_scatter


def scatter(src: Tensor, index: Tensor, dim: int = -1, dim_size: int | None = None, reduce: str = "sum") -> Tensor:
    """torch_scatter.scatter, which reduces along the last dimension unless told otherwise. index: [src.shape[dim]]."""
    return pyg_scatter(src, index, dim, dim_size, reduce)


class SparseTensor:
    """torch_sparse.SparseTensor: a matrix of `sparse_sizes` with `value` [K] at (row [K], col [K]), kept row by row."""

    def __init__(self, row: Tensor, col: Tensor, value: Tensor | None, sparse_sizes: tuple[int, int]):
        order = torch.argsort(row * sparse_sizes[1] + col)
        self._row, self._col = row[order], col[order]
        self._value = None if value is None else value[order]
        self.sparse_sizes = sparse_sizes

    @property
    def storage(self) -> SimpleNamespace:
        return SimpleNamespace(row=lambda: self._row, col=lambda: self._col, value=lambda: self._value)

    def set_value(self, value: Tensor | None) -> "SparseTensor":
        return SparseTensor(self._row, self._col, value, self.sparse_sizes)

    def sum(self, dim: int) -> Tensor:
        """Of every row [rows]; without values each entry counts as 1. dim: 1."""
        ones = torch.ones(len(self._row), device=self._row.device)
        return scatter(ones if self._value is None else self._value, self._row, 0, self.sparse_sizes[0])

    def __getitem__(self, rows: Tensor) -> "SparseTensor":
        """The rows [R] one below the other, a row as often as it is named."""
        count = torch.bincount(self._row, minlength=self.sparse_sizes[0])
        first = count.cumsum(0) - count
        count = count[rows]
        row = torch.repeat_interleave(count)
        entry = torch.arange(len(row), device=row.device) + (first[rows] - count.cumsum(0) + count)[row]
        value = None if self._value is None else self._value[entry]
        return SparseTensor(row, self._col[entry], value, (len(rows), self.sparse_sizes[1]))
