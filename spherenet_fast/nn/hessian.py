"""Second derivatives of a predicted energy by the positions, many rows at a time."""

from typing import Any

import torch
from torch import Tensor

from .derivatives import Predict
from .inputs import Inputs, read_inputs

ATOMS = 128  # of all copies together, by default: on a CPU more of them leave its caches


def hessian(
    predict: Predict, data: Any, weight: Tensor, atoms: Tensor | None = None, batch_size: int | None = None
) -> Tensor:
    """The exact second derivatives of a prediction, as an energy, by the positions of one structure's atoms.

    Copies of the structure make up one batch, in which no copy sees another. The derivative of their forces along a
    different coordinate of each is as many rows in one pass as there are copies.

    Args:
        predict: the model's function of checked inputs and their graph.
        data: what a model takes, of one structure; left as it is.
        weight: of the model, any shape: pos must have its dtype and device.
        atoms: [M] int64, numbers of the atoms whose block of the Hessian is wanted; None: all N.
        batch_size: rows at a time; None: as many as have `ATOMS` atoms together.

    Returns:
        [M, 3, M, 3], detached, in energy/Å^2: symmetric up to rounding.

    Raises:
        ValueError, TypeError: data is wrong; see `read_inputs`; or of more than one structure, `atoms` is none of its
            atoms, or batch_size is less than 1.
    """
    with torch.inference_mode(False), torch.enable_grad():
        inputs = read_inputs(data, weight)
        number = len(inputs.z)
        if inputs.num_graphs != 1 or number == 0:
            raise ValueError(f"data: expected one structure, for a Hessian, got {inputs.num_graphs}")
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        chosen = _coordinates(atoms, inputs)
        copies = max(1, min(len(chosen), ATOMS // number if batch_size is None else batch_size))
        many = _copied(inputs, copies)
        (slope,) = torch.autograd.grad(predict(many, None).sum(), many.pos, create_graph=True, materialize_grads=True)
        rows = [chosen.new_empty(0, len(chosen), dtype=slope.dtype)]
        for part in chosen.split(copies):
            along = torch.zeros(copies, 3 * number, dtype=slope.dtype, device=slope.device)
            along[torch.arange(len(part), device=part.device), part] = 1
            found = torch.zeros_like(along)  # of a prediction that depends on no position
            if slope.requires_grad:
                (found,) = torch.autograd.grad(
                    slope, many.pos, along.reshape(-1, 3), retain_graph=True, materialize_grads=True
                )
            rows.append(found.reshape(copies, -1)[: len(part), chosen])
    return torch.cat(rows).reshape(len(chosen) // 3, 3, len(chosen) // 3, 3)


def _coordinates(atoms: Tensor | None, inputs: Inputs) -> Tensor:
    """[3 M], numbers of the atoms' coordinates."""
    number, device = len(inputs.z), inputs.pos.device
    atoms = torch.arange(number, device=device) if atoms is None else torch.as_tensor(atoms, device=device)
    if atoms.dim() != 1 or atoms.dtype != torch.int64 or ((atoms < 0) | (atoms >= number)).any():
        raise ValueError(f"atoms: expected numbers [M] int64 from 0 to {number - 1}, got {atoms.tolist()}")
    return (3 * atoms[:, None] + torch.arange(3, device=device)).reshape(-1)


def _copied(inputs: Inputs, copies: int) -> Inputs:
    """As many copies of one structure as a batch, whose positions want a gradient."""
    z, pos, batch, _, cell, pbc = inputs
    return Inputs(
        z.repeat(copies),
        pos.detach().repeat(copies, 1).requires_grad_(),
        torch.arange(copies, device=batch.device).repeat_interleave(len(z)),
        copies,
        None if cell is None else cell.detach().reshape(1, 3, 3).repeat(copies, 1, 1),
        None if pbc is None else pbc.reshape(1, 3).repeat(copies, 1),
    )
