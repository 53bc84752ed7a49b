"""Operators whose kernels for a GPU are Triton's, where that is installed: row chains in float32.

Importing this package takes neither Triton nor a GPU; the first call does. With SPHERENET_FAST_TRITON=0 in the
environment layers are torch's.
"""

import os
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor

from ..._library import NAMESPACE
from .shapes import WIDEST

NAMES = ("row_chain", "row_chain_backward", "row_chain_double_backward")
_WANTED = os.environ.get("SPHERENET_FAST_TRITON") != "0"
AVAILABLE = _WANTED and torch.version.cuda is not None and find_spec("triton") is not None
_WEIGHTS = (torch.float32, torch.bfloat16, torch.float16)
_MOST_NUMBERS = 2**31  # in one array: places in it have 32 bits


def takes(rows: list[Tensor], weights: list[Tensor], biases: list[Tensor | None]) -> bool:
    """Whether the kernels take a chain: rows and biases float32, weights that or of lower precision, widths to 256."""
    widths = [size for row in rows for size in row.shape[1:]] + [size for weight in weights for size in weight.shape]
    return (
        all(row.dim() == 2 for row in rows)
        and all(tensor is None or tensor.dtype == torch.float32 for tensor in (*rows, *biases))
        and all(weight.dtype in _WEIGHTS for weight in weights)
        and 0 < min(widths)
        and max(widths) <= WIDEST
        and rows[0].shape[0] * max(widths) < _MOST_NUMBERS
    )


def under_autocast(rows: list[Tensor], weights: list[Tensor], biases: list[Tensor | None]) -> tuple[list, list, list]:
    """Rows and biases in float32, weights in the precision of autocast, which is that of the products."""
    lower = torch.get_autocast_dtype("cuda")
    biases = [bias if bias is None else bias.float() for bias in biases]
    return [row.float() for row in rows], [weight.to(lower) for weight in weights], biases


def _operator(name: str):
    def call(*arguments):
        return getattr(import_module(".row_chain", __name__), name)(*arguments)

    return call


if AVAILABLE:
    _REGISTERED = torch.library.Library(NAMESPACE, "IMPL")
    for _name in NAMES:
        _REGISTERED.impl(_name, _operator(_name), "CUDA")
