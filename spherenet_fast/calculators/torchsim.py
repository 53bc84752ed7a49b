"""SphereNet in TorchSim: many structures in one batch.

    import torch_sim as ts

    model = SphereNetModel("runs/ethanol/best.ckpt")
    state = ts.integrate(system=[ethanol] * 16, model=model, integrator=ts.Integrator.nvt_langevin, ...)

For torch-sim-atomistic from 0.3 on.
"""

from os import PathLike
from typing import Any

import torch
from torch import Tensor
from torch_sim.models.interface import ModelInterface
from torch_sim.state import SimState

from ..nn.framework import GraphNetwork3D
from ..training.potential import Potential
from .evaluator import Evaluator


class SphereNetModel(ModelInterface):
    """Energies (eV), forces (eV/Å) and stress (eV/Å^3, positive under tension) of TorchSim's states, detached.

    Args:
        potential, device, unit: as of `SphereNetCalculator`.
        dtype: of the states that TorchSim makes, and so of results. The network computes in its own precision; total
            energies of thousands of eV need float64 all the same.
        compute_stress: whether there is a stress where structures repeat.

    Raises:
        FileNotFoundError, ValueError, TypeError: as `SphereNetCalculator`.
    """

    def __init__(
        self,
        potential: Potential | GraphNetwork3D | str | PathLike,
        device: str | torch.device | None = None,
        unit: str | None = None,
        *,
        dtype: torch.dtype = torch.float64,
        compute_stress: bool = False,
    ):
        super().__init__()
        self._evaluate = Evaluator(potential, device, unit)
        self.potential = self._evaluate.potential  # a part of the module
        self._dtype = dtype
        self._compute_stress, self._compute_forces = compute_stress, True

    @property
    def device(self) -> torch.device:
        """Where the potential is, and states have to be."""
        return self.potential.scale.device

    @property
    def compute_stress(self) -> bool:
        """Whether there is a stress where structures repeat; it may be set."""
        return self._compute_stress

    @compute_stress.setter
    def compute_stress(self, value: bool) -> None:
        self._compute_stress = value

    def forward(self, state: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Of a state of B systems with N atoms in all.

        Args:
            state: a `SimState`, or a dictionary of its tensors.

        Returns:
            energy [B] and forces [N, 3], and stress [B, 3, 3] if `compute_stress` and the systems repeat, in the
            dtype of the state's positions.

        Raises:
            ValueError: an element was not in the training set, or a position is not finite.
        """
        if isinstance(state, dict):
            state = SimState(**state, masses=torch.ones_like(state["positions"][:, 0]))
        pbc = torch.as_tensor(state.pbc, device=state.positions.device).expand(3)
        found = self._evaluate(
            state.atomic_numbers.long(),
            state.positions.detach(),
            torch.bincount(state.system_idx, minlength=state.n_systems),
            state.cell.detach().mT,  # whose vectors are columns
            pbc,
            stress=self._compute_stress and bool(pbc.any()),
        )
        results = {name: tensor for name, tensor in found._asdict().items() if tensor is not None}
        return {name: tensor.to(state.positions.dtype) for name, tensor in results.items()}
