"""Forces and stress: derivatives of a predicted energy by positions and strain, differentiable again in training."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..graph import Graph
from ..graph.checks import may_read_values
from ..graph.graph import first_atoms, gather_rows
from ..graph.periodic import is_flat
from .inputs import Inputs, read_inputs

Predict = Callable[[Inputs, Graph | None], Tensor]  # checked inputs and their graph -> [num_graphs, out_channels]


def energy_and_forces(
    predict: Predict, data: Any, weight: Tensor, graph: Graph | None, training: bool
) -> tuple[Tensor, Tensor]:
    """A prediction, as an energy, and minus its derivative by the positions.

    Args:
        predict: the model's function of checked inputs and their graph.
        data: what a model takes; left as it is.
        weight: of the model, any shape: pos must have its dtype and device.
        graph: the neighbors, or None: `predict` finds them.
        training: whether the results can be differentiated again; else they are detached.

    Returns:
        energy [num_graphs, out_channels] and forces [N, 3], those of the sum of all energies. Works under
        `torch.no_grad()` and `torch.inference_mode()`.

    Raises:
        ValueError, TypeError: data is wrong; see `read_inputs`.
    """
    with torch.inference_mode(False), torch.enable_grad():
        return with_forces(predict, read_inputs(data, weight), graph, training)


def energy_forces_stress(
    predict: Predict, data: Any, weight: Tensor, graph: Graph | None, training: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """A prediction, as an energy, minus its derivative by the positions, and its derivative by strain over the volume.

    A strain e [3, 3], symmetric, moves every atom and every cell vector from x (a row) to x (1 + e). The stress is
    dE/de / V at e = 0, V the volume of the cell: symmetric, positive where the cell would rather shrink. Open
    directions are strained as well; the volume is that of the cell as given, vacuum included.

    Args, Returns: as in `energy_and_forces`; data needs a cell, and there is a third result, stress [B, 3, 3] in
        energy/Å^3, B = num_graphs.

    Raises:
        ValueError: there is no cell, not one for every structure, one without a volume, or a structure that repeats
            in no direction; or as above.
        TypeError: as above.
    """
    with torch.inference_mode(False), torch.enable_grad():
        inputs, volume = with_volume(read_inputs(data, weight))
        return with_forces(predict, inputs, graph, training, volume)


def with_forces(
    predict: Predict, inputs: Inputs, graph: Graph | None, training: bool, volume: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Energy and forces of checked inputs, and the stress if there is a `volume`: both from `with_volume`.

    Positions may require a gradient; derivatives have to be on.
    """
    if not inputs.pos.requires_grad:
        inputs = inputs._replace(pos=inputs.pos.detach().requires_grad_())
    if volume is None:
        energy = predict(inputs, graph)
        (forces,) = torch.autograd.grad(energy, inputs.pos, _downhill(energy), create_graph=training)
        return (energy, forces) if training else (energy.detach(), forces)
    strain = inputs.cell.new_zeros(inputs.cell.shape, requires_grad=True)
    energy = predict(_strained(inputs, (strain + strain.mT) / 2), graph)
    # Without any atom nothing depends on the cell.
    forces, virial = torch.autograd.grad(
        energy, (inputs.pos, strain), _downhill(energy), create_graph=training, materialize_grads=True
    )
    stress = virial / -volume[:, None, None]
    return (energy, forces, stress) if training else (energy.detach(), forces, stress.detach())


def _downhill(energy: Tensor) -> Tensor:
    """The cotangents of minus the sum of energies, whose gradient is forces."""
    return torch.full_like(energy, -1)


def with_volume(inputs: Inputs) -> tuple[Inputs, Tensor]:
    """The inputs with a cell for every structure [B, 3, 3], and their volumes [B].

    Raises ValueError or TypeError where there can be no stress, as `energy_forces_stress`.
    """
    cell, count = inputs.cell, inputs.num_graphs
    if cell is None:
        raise ValueError("data.cell: expected [B, 3, 3] or [3, 3], to which a stress relates, got None")
    if cell.dtype != inputs.pos.dtype or cell.device != inputs.pos.device:
        raise TypeError(
            f"data.cell: expected {inputs.pos.dtype} on {inputs.pos.device} as for pos, "
            f"got {cell.dtype} on {cell.device}"
        )
    if cell.dim() == 2:
        cell = cell.expand(count, 3, 3)
    volume = torch.linalg.det(cell).abs()
    if may_read_values(cell):
        if inputs.pbc is not None and not (repeats := inputs.pbc.reshape(-1, 3).any(1)).all():
            number = int((~repeats).nonzero()[0])
            raise ValueError(
                f"data.pbc: expected a direction that repeats, for a stress, got none for structure {number}"
            )
        flat = is_flat(cell)
        if flat.any():
            number = int(flat.nonzero()[0])
            raise ValueError(
                f"data.cell: expected cells with a volume, to which a stress relates, got {cell[number].tolist()} "
                f"for structure {number}"
            )
    return inputs._replace(cell=cell), volume


def _strained(inputs: Inputs, strain: Tensor) -> Inputs:
    """The inputs with their cells [B, 3, 3] under strain [B, 3, 3]."""
    z, pos, batch, num_graphs, cell, pbc = inputs
    of_atom = gather_rows(strain.reshape(-1, 9), batch, first_atoms(batch, num_graphs), None).reshape(
        -1, 3, 3
    )  # [N, 3, 3]
    moved = pos + (pos[:, :, None] * of_atom).sum(1)
    return Inputs(z, moved, batch, num_graphs, cell + cell @ strain, pbc)
