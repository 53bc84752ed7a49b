"""Layers that treat every row alone."""

from collections.abc import Callable

from torch import Tensor


def row_chain(function: Callable, *rows: Tensor) -> tuple[Tensor, ...]:
    """function(*rows). rows: tensors [M, ...]; `function` returns a tuple of tensors with M rows."""
    return function(*rows)
