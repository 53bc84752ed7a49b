"""What the engines share: arrays of elements, positions and cells in, energies, forces and stress out, in eV and Å."""

from io import BytesIO
from os import PathLike
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..data.centering import centered
from ..nn.framework import GraphNetwork3D
from ..training.checkpoint import serialized
from ..training.potential import Potential
from ..training.results import energy_factor
from .ase import SphereNetCalculator


class Evaluation(NamedTuple):
    """Of B structures with N atoms in all, float64, on the device of the potential."""

    energy: Tensor  # [B] eV
    forces: Tensor  # [N, 3] eV/Å
    stress: Tensor | None = None  # [B, 3, 3] eV/Å^3, positive under tension


class Evaluator:
    """A potential as a function of arrays, for engines that have no ASE structures. It can be pickled.

    Args:
        potential, device, unit: as of `SphereNetCalculator`.

    Raises:
        FileNotFoundError, ValueError, TypeError: as `SphereNetCalculator`.
    """

    def __init__(
        self,
        potential: Potential | GraphNetwork3D | str | PathLike,
        device: str | torch.device | None = None,
        unit: str | None = None,
    ):
        self.potential: Potential = SphereNetCalculator(potential, device, unit).potential
        self._factor, self._unit = energy_factor(self.potential, unit), unit

    def __call__(
        self,
        z: Tensor,
        pos: Tensor,
        n_atoms: Tensor,
        cell: Tensor | None = None,
        pbc: Tensor | None = None,
        stress: bool = False,
    ) -> Evaluation:
        """Energies and forces of all structures at once.

        Positions may lie anywhere: they are moved near the origin before they are rounded to the model's precision.

        Args:
            z: [N] int64, atomic numbers, structure by structure.
            pos: [N, 3] Å.
            n_atoms: [B] int64.
            cell: [B, 3, 3] Å, its vectors are rows.
            pbc: [3] bool, the directions in which all of them repeat; None: all, if there is a cell.
            stress: whether it is wanted; then they repeat in a direction, and their cells have a volume.

        Raises:
            ValueError: an element was not in the training set, a position is not finite, or there can be no stress.
        """
        self.potential.check_elements(z)
        weight = next(self.potential.parameters())
        if cell is None or (pbc is not None and not bool(pbc.any())):
            cell = pbc = None
        near = centered(pos, n_atoms, cell, pbc, weight.dtype)
        structures = torch.arange(len(n_atoms), device=n_atoms.device)
        data = {
            "z": z.to(weight.device),
            "pos": near.to(weight.device),
            "batch": torch.repeat_interleave(structures, n_atoms, output_size=len(z)).to(weight.device),
            "num_graphs": len(n_atoms),
            "cell": None if cell is None else cell.to(weight),
            "pbc": None if pbc is None else pbc.to(weight.device),
        }
        recorded = self.potential.recorded
        found: Any = recorded.energy_forces_stress(data) if stress else recorded.energy_and_forces(data)
        energy, *slopes = (self._factor * part.double() for part in self.potential.in_units(data, *found))
        return Evaluation(energy[:, 0], *slopes)

    def __getstate__(self) -> dict:
        """A checkpoint, which later versions of the package read, instead of modules."""
        device = str(self.potential.scale.device)
        return {"checkpoint": serialized(self.potential.state()), "device": device, "unit": self._unit}

    def __setstate__(self, state: dict) -> None:
        checkpoint = torch.load(BytesIO(state["checkpoint"]), map_location="cpu", weights_only=True)
        potential = Potential.from_state(checkpoint).requires_grad_(False)
        self.__init__(potential, state["device"], state["unit"])  # type: ignore[misc]
