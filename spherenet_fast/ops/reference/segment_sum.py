"""Sums of rows over segments, and their transpose."""

import torch
from torch import Tensor

from ._precision import full_precision


@full_precision
def segment_sum(x: Tensor, ptr: Tensor, index: Tensor | None = None, segment: Tensor | None = None) -> Tensor:
    """out[n] = sum of x[index[k]], or of x[k] where index is None, over k in ptr[n]:ptr[n+1].

    x [E, C], ptr [N + 1], index [E] or None; segment [E], the n of every row, for the derivative of fused kernels.
    Returns [N, C].
    """
    if index is not None:
        x = x.index_select(0, index)
    atoms = torch.arange(ptr.shape[0] - 1, device=x.device)
    segment = torch.repeat_interleave(atoms, ptr.diff(), output_size=x.shape[0])
    return x.new_zeros(ptr.shape[0] - 1, *x.shape[1:]).index_add(0, segment, x)


@full_precision
def gather(x: Tensor, index: Tensor, ptr: Tensor, perm: Tensor | None = None) -> Tensor:
    """x[index]: x [N, C], index [E]. Returns [E, C].

    ptr [N + 1] and perm [E] or None list where each row of x is used; fused kernels need them for the derivative.
    """
    return x.index_select(0, index)
