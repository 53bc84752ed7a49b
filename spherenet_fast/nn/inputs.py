"""Reading and checking what a model is given."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..graph.checks import MAX_STRUCTURES, check_dense, may_read_values
from .ranges import NUM_ELEMENTS


class Inputs(NamedTuple):
    """What a model is called with, checked: a batch of molecules or cells."""

    z: Tensor  # [N] int64
    pos: Tensor  # [N, 3]
    batch: Tensor  # [N] int64, ascending
    num_graphs: int
    cell: Tensor | None  # [B, 3, 3] or [3, 3]
    pbc: Tensor | None  # [B, 3] or [3]


def read_inputs(data: Any, weight: Tensor, values: bool = True) -> Inputs:
    """Take z, pos, batch, num_graphs, cell and pbc from `data` (attributes, or a dict) and check them.

    weight: of the model, any shape; pos must have its dtype and device. batch None is one molecule. num_graphs is
    counted from batch where `data` does not say it. values: False to look at dtypes, shapes and devices alone, which
    waits for no GPU if num_graphs is known. Tensors of inference mode are copied outside of it, where no derivative
    could be taken with them. Raises ValueError, or TypeError for a wrong type or dtype, naming the argument.
    """
    check_differentiable(weight)
    z, pos, batch, cell, pbc = (_given(data, name) for name in ("z", "pos", "batch", "cell", "pbc"))
    num_graphs = entry(data, "num_graphs")
    for name, value in (("z", z), ("pos", pos)):
        if value is None:
            raise TypeError(f"data.{name}: expected a tensor, got NoneType")
    if z.dtype != torch.int64:
        raise TypeError(f"data.z: expected int64, got {z.dtype}")
    if z.dim() != 1:
        raise ValueError(f"data.z: expected shape [N], got {list(z.shape)}")
    if pos.dtype != weight.dtype:
        raise TypeError(f"data.pos: expected {weight.dtype}, the dtype of the model, got {pos.dtype}")
    if pos.device != weight.device:
        raise ValueError(f"data.pos: expected device {weight.device}, that of the model, got {pos.device}")
    if pos.shape != (len(z), 3):
        raise ValueError(f"data.pos: expected shape [{len(z)}, 3] to go with z, got {list(pos.shape)}")
    if batch is None:
        batch = torch.zeros_like(z)
        num_graphs = 1 if num_graphs is None else num_graphs
    if batch.dtype != torch.int64:
        raise TypeError(f"data.batch: expected int64, got {batch.dtype}")
    if batch.shape != z.shape:
        raise ValueError(f"data.batch: expected shape [{len(z)}] to go with z, got {list(batch.shape)}")
    for name, tensor in (("z", z), ("batch", batch)):
        if tensor.device != pos.device:
            raise ValueError(f"data.{name}: expected device {pos.device} as for pos, got {tensor.device}")
    if num_graphs is None:
        num_graphs = int(batch.max()) + 1 if len(batch) else 0
        if num_graphs > MAX_STRUCTURES:
            raise ValueError(f"data.batch: expected molecule numbers below {MAX_STRUCTURES}, got {num_graphs - 1}")
    least = 1 if len(batch) else 0
    if not isinstance(num_graphs, int) or isinstance(num_graphs, bool) or not least <= num_graphs <= MAX_STRUCTURES:
        raise ValueError(f"data.num_graphs: expected an int from {least} to {MAX_STRUCTURES}, got {num_graphs!r}")
    if values and len(z) and may_read_values(pos):
        _check_values(z, pos, batch, num_graphs)
    cell, pbc = _apart(cell, "cell", (3, 3), num_graphs), _apart(pbc, "pbc", (3,), num_graphs)
    return Inputs(z, pos, batch, num_graphs, cell, pbc)


def entry(data: Any, name: str) -> Any:
    """data[name] or data.name, None where there is none."""
    return data.get(name) if isinstance(data, dict) else getattr(data, name, None)


def _check_values(z: Tensor, pos: Tensor, batch: Tensor, num_graphs: int) -> None:
    wrong = torch.stack(  # one tensor, so that a GPU is asked once
        [
            ((z < 1) | (z >= NUM_ELEMENTS)).any(),
            ~pos.isfinite().all(),
            (batch[1:] < batch[:-1]).any(),
            (batch[0] < 0) | (batch[-1] >= num_graphs),
        ]
    ).tolist()
    if wrong[0]:
        found = f"{int(z.min())} to {int(z.max())}"
        raise ValueError(f"data.z: expected atomic numbers 1 to {NUM_ELEMENTS - 1}, got {found}")
    if wrong[1]:
        atom = int((~pos.isfinite()).any(dim=1).nonzero()[0])
        raise ValueError(f"data.pos: expected finite coordinates, got {pos[atom].tolist()} for atom {atom}")
    if wrong[2]:
        raise ValueError("data.batch: expected molecule numbers in ascending order, got a smaller after a larger one")
    if wrong[3]:
        raise ValueError(
            f"data.batch: expected molecule numbers 0 to {num_graphs - 1}, got {int(batch[0])} to {int(batch[-1])}"
        )


def _given(data: Any, name: str) -> Tensor | None:
    """The tensor of that name, which can take part in a derivative; None where there is none."""
    value = entry(data, name)
    if value is None:
        return None
    check_dense(f"data.{name}", value)
    return outside_inference(value)


def outside_inference(value: Any) -> Any:
    """A copy of a tensor of inference mode outside of it, where no derivative is taken with the tensor itself."""
    if torch.compiler.is_compiling() or torch.is_inference_mode_enabled():
        return value
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


def check_differentiable(weight: Tensor) -> None:
    """ValueError for a model made in inference mode, outside of it where derivatives are on."""
    if torch.compiler.is_compiling() or torch.is_inference_mode_enabled() or not torch.is_grad_enabled():
        return
    if weight.is_inference():
        raise ValueError(
            "model: expected weights made outside of torch.inference_mode(), to take derivatives with, got weights "
            "made inside it; copy.deepcopy(model) outside makes others"
        )


def _apart(value: Tensor | None, name: str, shape: tuple[int, ...], num_graphs: int) -> Tensor | None:
    """cell or pbc as one for every molecule, [B, 3, 3] or [B, 3], or as one for all, [3, 3] or [3].

    PyTorch Geometric joins the cells of a batch to [3 B, 3], and their pbc to [3 B]; both are taken apart again.
    """
    if value is None or value.shape == shape:
        return value
    if value.dim() not in (len(shape), len(shape) + 1) or value.numel() % math.prod(shape):
        many = ", ".join(["B", *map(str, shape)])
        raise ValueError(f"data.{name}: expected shape {list(shape)} or [{many}], got {list(value.shape)}")
    value = value.reshape(-1, *shape)
    if len(value) != num_graphs:
        raise ValueError(f"data.{name}: expected one for each of {num_graphs} structures, got {len(value)}")
    return value
