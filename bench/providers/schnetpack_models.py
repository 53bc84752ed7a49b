"""PaiNN of SchNetPack as a model of `spherenet-fast train`: model.name=bench.providers.schnetpack_models.PaiNN"""

import schnetpack as spk
from schnetpack import properties
from torch import Tensor, nn

from spherenet_fast import GraphNetwork3D
from spherenet_fast.nn.framework import System


class PaiNN(GraphNetwork3D):
    """The network and its sizes as in SchNetPack's config for MD17; cutoff in Å."""

    def __init__(self, cutoff: float = 5.0, num_layers: int = 3, hidden_channels: int = 128, num_radial: int = 20):
        super().__init__(cutoff, num_layers=1)
        self.representation = spk.representation.PaiNN(
            hidden_channels,
            num_layers,
            radial_basis=spk.nn.GaussianRBF(num_radial, cutoff),
            cutoff_fn=spk.nn.CosineCutoff(cutoff),
        )
        self.out = spk.nn.build_mlp(hidden_channels, 1, n_layers=2, activation=nn.functional.silu)

    def embed(self, system: System, p_e: None) -> tuple[Tensor, None]:
        """The energies of the atoms, [N, 1]."""
        sender, receiver = system.graph.edge_index
        inputs = {
            properties.Z: system.z,
            properties.Rij: -system.vec.to(system.dtype),  # from the center to its neighbor
            properties.idx_i: receiver,
            properties.idx_j: sender,
        }
        return self.out(self.representation(inputs)["scalar_representation"]), None

    def rho_ev(self, e: None, system: System) -> None:
        return None
