"""Layers that treat every row alone."""

from collections.abc import Callable

from torch import Tensor


def row_chain(function: Callable, *rows: Tensor, recompute: bool = False) -> tuple[Tensor, ...]:
    """function(*rows). rows: tensors [M, ...]; `function` returns a tuple of tensors with M rows.

    recompute: whether the backward pass finds again what is between rows and results; here it is always stored.
    """
    return function(*rows)
