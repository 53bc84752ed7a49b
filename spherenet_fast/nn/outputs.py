"""All output blocks of a model at once."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import ops
from .blocks import AtomOutput, Dense


def sum_of_outputs(blocks: Sequence[AtomOutput], sums: Sequence[Tensor], operators, dtype: torch.dtype) -> Tensor:
    """The sum of block(x, operators) over every block and its x [N, H]: [N, out_channels], of the dtype.

    On a GPU layer by layer for all B blocks at once, where they are alike: a batch has few atoms and a block many
    layers, so that launching kernels would take longer than the products.
    """
    if not _worth_joining(sums[0]) or operators is not ops or not _alike(blocks):
        first, *others = (block(x, operators) for block, x in zip(blocks, sums, strict=True))
        return sum(others, first.to(dtype))
    v, layers = _Stack.apply(*sums), _joined([_layers(block) for block in blocks])  # [B, N, H]
    if blocks[0].lin_up is not None:
        v = ops.linear(v, *layers.pop(0))
    *hidden, last = layers
    for layer in hidden:
        v = ops.linear_silu(v, *layer)
    return ops.linear(v, *last).sum(0, dtype=dtype)


class _Stack(torch.autograd.Function):
    """torch.stack; the second derivative of torch's own adds up as many tensors of zeros and one part."""

    @staticmethod
    def forward(ctx, *parts: Tensor) -> Tensor:
        return torch.stack(parts)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, ...]:
        return grad.unbind()


def _worth_joining(x: Tensor) -> bool:
    return not x.is_cpu  # there a tile of atoms goes through a block in one call


def _layers(block: AtomOutput) -> list[Dense]:
    return [layer for layer in (block.lin_up, *block.lins, block.lin) if layer is not None]


def _alike(blocks: Sequence[AtomOutput]) -> bool:
    """Whether the blocks differ in the numbers of their weights alone, and no hook waits for a call of one of them."""
    modules = [[block, *_layers(block)] for block in blocks]
    of_first = [(type(module), [p.shape for p in module.parameters()]) for module in modules[0]]
    return all(
        {type(module) for module in own} == {AtomOutput, Dense}
        and not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks for m in own)
        and [(type(module), [p.shape for p in module.parameters()]) for module in own] == of_first
        for own in modules
    )


def _joined(layers: Sequence[Sequence[Dense]]) -> list[tuple[Tensor, Tensor | None]]:
    """weight [B, N, K] and bias [B, N] of every layer, from the layers of all B blocks: one copy, which is cut up."""
    parts = [[layer.weight for layer in same] for same in zip(*layers)]
    parts += [[layer.bias for layer in same] for same in zip(*layers) if same[0].bias is not None]
    memory = torch.cat([tensor.flatten() for same in parts for tensor in same])
    cuts = memory.split([len(same) * same[0].numel() for same in parts])
    joined = [cut.view(len(same), *same[0].shape) for cut, same in zip(cuts, parts, strict=True)]
    weights, biases = joined[: len(layers[0])], iter(joined[len(layers[0]) :])
    return [(w, None if layer.bias is None else next(biases)) for w, layer in zip(weights, layers[0], strict=True)]
