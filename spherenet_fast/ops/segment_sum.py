"""Sums of rows over segments, and their transpose, in a fixed order."""

import torch
from torch import Tensor

from ._register import compiled, derivative, fake, full_precision


def segment_sum(x: Tensor, ptr: Tensor, index: Tensor | None = None, segment: Tensor | None = None) -> Tensor:
    """out[n] = sum of x[index[k]] (x[k] where index is None) over k in ptr[n] .. ptr[n+1], in that order.

    x [E, C]; ptr [N+1]; index [E], a permutation of the rows; segment [E], the n that each row is added to, -1 for a
    row of none: the same by row, which the derivative needs and otherwise makes itself. Rows of none are the last ones
    of index. Returns [N, C], differentiable any number of times.
    """
    return compiled.segment_sum(x, ptr, index, segment)


def gather(x: Tensor, index: Tensor, ptr: Tensor, perm: Tensor | None = None) -> Tensor:
    """x[index], whose derivative is `segment_sum(grad, ptr, perm)`: no atomics, the same bits on every run.

    x [N, C]; index [E], -1 for a row of zeros; ptr [N+1] and perm [E] the same index by row:
    perm[ptr[n] .. ptr[n+1]] (or that range itself) are the positions where index is n.
    Returns [E, C], differentiable any number of times.
    """
    return compiled.gather(x, index, ptr, perm)


@fake("segment_sum")
def _(x, ptr, index, segment):
    return x.new_empty(ptr.shape[0] - 1, x.shape[1])


@fake("gather")
def _(x, index, ptr, perm):
    return x.new_empty(index.shape[0], x.shape[1])


def _segments(ptr, index, rows):
    """The segment of every row [rows], the transpose of ptr [N+1] and index [rows] or None; -1 for a row of none."""
    row = torch.arange(rows, device=ptr.device)
    segment = torch.searchsorted(ptr[1:].contiguous(), row, right=True)
    segment = torch.where(row < ptr[-1], segment, -1)
    return segment if index is None else torch.empty_like(segment).index_copy(0, index, segment)


def _segment_sum_context(ctx, inputs, output):
    x, ptr, index, segment = inputs
    ctx.save_for_backward(ptr, index, segment)
    ctx.rows = x.shape[0]


def _segment_sum_backward(ctx, grad):
    ptr, index, segment = ctx.saved_tensors
    if segment is None:
        segment = _segments(ptr, index, ctx.rows if index is None else index.shape[0])
    return compiled.gather(grad, segment, ptr, index), None, None, None


def _gather_context(ctx, inputs, output):
    _, index, ptr, perm = inputs
    ctx.save_for_backward(index, ptr, perm)


def _gather_backward(ctx, grad):
    index, ptr, perm = ctx.saved_tensors
    return compiled.segment_sum(grad, ptr, perm, index), None, None, None


derivative("segment_sum", _segment_sum_backward, _segment_sum_context)
full_precision("segment_sum")
derivative("gather", _gather_backward, _gather_context)
full_precision("gather")
