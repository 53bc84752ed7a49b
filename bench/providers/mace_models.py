"""MACE as a model of `spherenet-fast train`: model.name=bench.providers.mace_models.MACE"""

import numpy as np
import torch
from ase.data import atomic_numbers
from e3nn.o3 import Irreps
from mace.modules import RealAgnosticResidualInteractionBlock, ScaleShiftMACE
from torch import Tensor

from spherenet_fast import GraphNetwork3D
from spherenet_fast.nn.framework import System


class MACE(GraphNetwork3D):
    """Two layers with 64 scalars and 64 vectors an atom, harmonics up to l = 2, messages of body order 4.

    cutoff in Å; elements: symbols, separated by commas, as the weights of MACE are those of elements; neighbors: of an
    atom on the average.
    """

    def __init__(
        self,
        cutoff: float = 5.0,
        channels: int = 64,
        max_ell: int = 2,
        elements: str = "H,C,N,O",
        neighbors_per_atom: float = 14.0,
    ):
        super().__init__(cutoff, num_layers=1)
        numbers = sorted(atomic_numbers[symbol] for symbol in elements.split(","))
        self.network = ScaleShiftMACE(
            r_max=cutoff,
            num_bessel=8,
            num_polynomial_cutoff=5,
            max_ell=max_ell,
            interaction_cls=RealAgnosticResidualInteractionBlock,
            interaction_cls_first=RealAgnosticResidualInteractionBlock,
            num_interactions=2,
            num_elements=len(numbers),
            hidden_irreps=Irreps(f"{channels}x0e + {channels}x1o"),
            MLP_irreps=Irreps("16x0e"),
            atomic_energies=np.zeros(len(numbers)),
            avg_num_neighbors=neighbors_per_atom,
            atomic_numbers=numbers,
            correlation=3,
            gate=torch.nn.functional.silu,
            atomic_inter_scale=1.0,
            atomic_inter_shift=0.0,
        )
        self.register_buffer("position_of_element", torch.full((max(numbers) + 1,), -1), persistent=False)
        self.position_of_element[numbers] = torch.arange(len(numbers))

    def embed(self, system: System, p_e: None) -> tuple[Tensor, None]:
        """The energies of the atoms, [N, 1]."""
        element = torch.nn.functional.one_hot(self.position_of_element[system.z], len(self.network.atomic_numbers))
        data = {
            "node_attrs": element.to(system.dtype),
            "edge_index": system.graph.edge_index,
            "positions": torch.zeros(len(system.z), 3, dtype=system.dtype, device=system.z.device),
            "shifts": system.vec.to(system.dtype),  # with all atoms at the origin these are the edges' vectors
            "batch": system.batch,
            "ptr": system.first_atom,
            "cell": None,
        }
        energy = self.network(data, training=self.training, compute_force=False)["node_energy"]
        return energy.to(system.dtype).unsqueeze(-1), None

    def rho_ev(self, e: None, system: System) -> None:
        return None
