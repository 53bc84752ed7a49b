"""Loads the compiled operators into ``torch.ops.spherenet_fast``."""

from functools import cache
from pathlib import Path

import torch

_OLDEST_TORCH = (2, 11)

# Operators with a kernel for the CPU alone; every other one has one for each device that the library was built for.
# On a GPU the products of linear layers and of their derivatives are torch's.
CPU_ALONE = frozenset({"spherenet_fast::product", "spherenet_fast::outer_sum"})


def load() -> None:
    """Registers the operators; raises ImportError where torch is too old or the library was not built."""
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < _OLDEST_TORCH:
        raise ImportError(f"spherenet_fast: needs torch 2.11 or newer, found {torch.__version__}")
    path = Path(__file__).with_name("_C.abi3.so")
    if not path.exists():
        raise ImportError(
            f"spherenet_fast: the compiled library {path.name} is missing beside {path.parent}; "
            "build it with: pip install --no-build-isolation ."
        )
    torch.ops.load_library(str(path))


@cache
def has_cuda_kernels() -> bool:
    """Whether the library was built with kernels for CUDA tensors."""
    return torch._C._dispatch_has_kernel_for_dispatch_key("spherenet_fast::gated_sum", "CUDA")
