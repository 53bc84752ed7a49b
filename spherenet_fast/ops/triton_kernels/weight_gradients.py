"""Gradients of the weights and biases of a row chain: how the sums over rows are divided among programs."""

import math

import torch
import triton
from torch import Tensor

from . import sums
from .chain import Chain
from .shapes import FUSION, PART_ROWS


def parameter_gradients(
    chain: Chain, grads: list[Tensor | None], sources: list[Tensor | None], biases: list[Tensor]
) -> list[Tensor | None]:
    """For each step grads^T sources, then the column sums of grads; None where there is none of these, or no bias.

    Summed in float32 over parts of the rows, whose number depends on that of the rows alone, then over the parts in
    order.
    """
    present = [k for k, grad in enumerate(grads) if grad is not None]
    shape, count = chain.shape, len(grads)
    results: list[Tensor | None] = [None] * (2 * count)
    at, weight_at, bias_at, first = 0, [], [], [0]
    for k in present:
        weight = chain.weights[k]
        results[k] = torch.empty_like(weight, dtype=torch.float32)
        weight_at.append(at)
        bias_at.append(at + weight.numel())
        at += weight.numel()
        if biases[k].numel():
            results[count + k] = torch.empty_like(biases[k])
            at += biases[k].numel()
        first.append(first[-1] + math.prod(triton.cdiv(size, shape.block) for size in weight.shape))
    parts, part_rows = parts_of(chain.num_rows)
    of_parts = chain.rows[0].new_empty(parts, at)
    arrays = [tuple(tensors[k] for k in present) for tensors in (grads, sources)]
    known = chain.constants(*arrays, [of_parts])
    of_present = {name: tuple(known[name][k] for k in present) for name in ("INNER", "OUTER")}
    with torch.cuda.device_of(of_parts):
        sums.outer_sums[(first.pop(), parts)](
            *arrays, of_parts, chain.num_rows, part_rows, **of_present, FIRST=tuple(first), WEIGHT_AT=tuple(weight_at),
            BIAS_AT=tuple(bias_at), HAS_BIAS=tuple(int(results[count + k] is not None) for k in present), TOTAL=at,
            UNIT=known["UNIT"], PRECISION=known["PRECISION"], TYPE=known["TYPE"], **shape.of_sums(),
        )  # fmt: skip
        found = [(results[k], where) for k, where in zip(present, weight_at)]
        found += [(results[count + k], where) for k, where in zip(present, bias_at) if results[count + k] is not None]
        first = [0]
        for result, _ in found:
            first.append(first[-1] + triton.cdiv(result.numel(), shape.elements))
        sums.add_parts[(first.pop(),)](
            of_parts, tuple(result for result, _ in found), parts, SIZES=tuple(result.numel() for result, _ in found),
            AT=tuple(where for _, where in found), FIRST=tuple(first), TOTAL=at, BLOCK=shape.elements, **FUSION,
        )  # fmt: skip
    dtype = chain.weights[0].dtype
    return [result if result is None else result.to(dtype) for result in results[:count]] + results[count:]


def parts_of(num_rows: int) -> tuple[int, int]:
    """Into how many parts rows are divided where they are summed, and the rows of a part."""
    parts = min(16, triton.cdiv(num_rows, PART_ROWS))
    return parts, triton.cdiv(triton.cdiv(num_rows, parts), PART_ROWS // 4) * (PART_ROWS // 4)
