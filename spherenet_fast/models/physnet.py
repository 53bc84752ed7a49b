"""PhysNet (Unke and Meuwly, "PhysNet: A neural network for predicting energies, forces, ...", JCTC 2019)."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..graph.unique_distances import UniqueDistances, unique_distances
from ..nn import ranges
from ..nn.blocks import Dense, shifted_softplus
from ..nn.framework import GraphNetwork3D, System
from ..nn.ranges import NUM_ELEMENTS


class PreActivated(nn.Module):
    """Residual block x + W2 ssp(W1 ssp(x) + b1) + b2. x [N, F] -> [N, F]."""

    def __init__(self, channels: int):
        super().__init__()
        self.lin1 = Dense(channels, channels)
        self.lin2 = Dense(channels, channels)

    def forward(self, x: Tensor, operators) -> Tensor:
        return x + self.lin2(shifted_softplus(self.lin1(shifted_softplus(x), operators)), operators)


class PhysNetModule(nn.Module):
    """One module: messages, the interaction block, residual blocks, and the output block."""

    def __init__(
        self, channels: int, num_gaussians: int, out_channels: int, interaction: int, atomic: int, output: int
    ):
        super().__init__()
        self.mask = Dense(num_gaussians, channels, bias=False)
        self.lin_i = Dense(channels, channels)
        self.lin_j = Dense(channels, channels)
        self.interaction_residuals = nn.ModuleList(PreActivated(channels) for _ in range(interaction))
        self.lin = Dense(channels, channels)
        self.gate = nn.Parameter(torch.ones(channels))
        self.atomic_residuals = nn.ModuleList(PreActivated(channels) for _ in range(atomic))
        self.output_residuals = nn.ModuleList(PreActivated(channels) for _ in range(output))
        self.out = Dense(channels, out_channels, bias=False)
        nn.init.zeros_(self.mask.weight)
        nn.init.zeros_(self.out.weight)

    def update(self, x: Tensor, message: Tensor, operators) -> Tensor:
        """The next features of the atoms. x, message [N, F] -> [N, F]."""
        proto = shifted_softplus(self.lin_i(shifted_softplus(x), operators)) + message
        for residual in self.interaction_residuals:
            proto = residual(proto, operators)
        x = self.gate * x + self.lin(shifted_softplus(proto), operators)
        for residual in self.atomic_residuals:
            x = residual(x, operators)
        return x

    def output(self, x: Tensor, operators) -> Tensor:
        """What this module adds to the prediction of every atom. x [N, F] -> [N, out_channels]."""
        for residual in self.output_residuals:
            x = residual(x, operators)
        return self.out(shifted_softplus(x), operators)


class Distances(NamedTuple):
    """What PhysNet's edges see of the positions."""

    gaussians: Tensor  # [M, K], with the cutoff
    unique: UniqueDistances  # M


class PhysNet(GraphNetwork3D):
    """Messages through masks that are functions of the distance, and a prediction from every module.

    As 3DGN (Appendix B of the SphereNet paper), with s the shifted softplus ln((1 + e^x) / 2) and r = d / cutoff:

        rho^{p->e} = Psi(d):  g_n = f(d) exp(-beta_n (exp(-d) - mu_n)^2),  f = 1 - 6 r^5 + 15 r^4 - 10 r^3
        phi^e:  e'_k = (G g) * s(W_J s(x_{s_k}) + b_J)
        rho^{e->v}:  the sum over the edges into i
        phi^v:  w_i = residual blocks of s(W_I s(x_i) + b_I) + rho^{e->v}
                x'_i = residual blocks of u * x_i + W s(w_i) + b
                y'_i = y_i + W_out s(residual blocks of x'_i)                      V being (x, y)
        phi^u:  u = sum over the atoms of scale_z y_i + shift_z, for the element z of atom i

    A residual block is x + W_2 s(W_1 s(x) + b_1) + b_2. The masks G and the outputs W_out are 0 at the start, so the
    untrained model predicts 0. Electrostatics and dispersion are no part of it.

    Args:
        cutoff: atoms closer than this are neighbors, in the unit of the positions (Å).
        num_blocks: modules.
        hidden_channels: F, width of features and messages.
        num_gaussians: K, 2 or more.
        out_channels: predicted numbers for each molecule.
        num_residual_interaction, num_residual_atomic, num_residual_output: residual blocks of the interaction, after
            it, and before the output.
        max_num_neighbors: keep only so many nearest neighbors; None keeps all.
        kernels: False computes with the readable `spherenet_fast.ops.reference` instead of the fused kernels.

    `hparams` is the dict of these arguments. Raises ValueError or TypeError, naming the argument, for values out of
    range.
    """

    def __init__(
        self,
        cutoff: ranges.Cutoff = 10.0,
        num_blocks: ranges.Layers = 5,
        hidden_channels: ranges.Width = 128,
        num_gaussians: ranges.NumGaussians = 64,
        out_channels: ranges.Width = 1,
        num_residual_interaction: ranges.MoreLayers = 3,
        num_residual_atomic: ranges.MoreLayers = 2,
        num_residual_output: ranges.MoreLayers = 1,
        max_num_neighbors: ranges.MaxNeighbors = None,
        kernels: bool = True,
    ):
        super().__init__(cutoff, num_blocks)
        self.emb = nn.Embedding(NUM_ELEMENTS, hidden_channels)
        nn.init.uniform_(self.emb.weight, -(3**0.5), 3**0.5)
        residuals = num_residual_interaction, num_residual_atomic, num_residual_output
        self.blocks = nn.ModuleList(
            PhysNetModule(hidden_channels, num_gaussians, out_channels, *residuals) for _ in range(num_blocks)
        )
        nearest = math.exp(-cutoff)  # exp(-d) runs from here to 1
        self.mu = nn.Parameter(torch.linspace(nearest, 1, num_gaussians))
        self.beta = nn.Parameter(torch.full((num_gaussians,), (2 * (1 - nearest) / num_gaussians) ** -2))
        self.scale = nn.Embedding.from_pretrained(torch.ones(NUM_ELEMENTS, out_channels), freeze=False)
        self.shift = nn.Embedding.from_pretrained(torch.zeros(NUM_ELEMENTS, out_channels), freeze=False)

    def parameter_like(self) -> Tensor:
        return self.emb.weight

    def rho_pe(self, system: System) -> Distances:
        unique = unique_distances(system.graph, system.distance.to(system.dtype))
        distance = unique.distance
        r = distance / self.cutoff
        ends = torch.where(r < 1, 1 - r**3 * (10 - 15 * r + 6 * r**2), 0.0)
        return Distances(ends * torch.exp(-self.beta * (torch.exp(-distance) - self.mu).square()), unique)

    def embed(self, system: System, p_e: Distances) -> tuple[tuple[Tensor, Tensor], None]:
        x = self.emb(system.z)
        return (x, x.new_zeros(x.shape[0], self.hparams["out_channels"])), None

    def phi_e(self, layer: int, e: Tensor | None, v: tuple, p_e: Distances, system: System) -> Tensor:
        block, operators = self.blocks[layer], system.operators
        gate = p_e.unique.to_edges(block.mask(p_e.gaussians, operators), operators)
        message = shifted_softplus(block.lin_j(shifted_softplus(v[0]), operators))
        return system.of_senders(message) * gate

    def phi_v(self, layer: int, v: tuple, e_v: Tensor, p_v: None, system: System) -> tuple[Tensor, Tensor]:
        block, (x, y) = self.blocks[layer], v
        x = block.update(x, e_v, system.operators)
        return x, y + block.output(x, system.operators)

    def atom_readout(self, v: tuple[Tensor, Tensor], system: System) -> Tensor:
        return self.scale(system.z) * v[1] + self.shift(system.z)

    def atom_features(self, v: tuple[Tensor, Tensor], e: Tensor, system: System) -> Tensor:
        return v[0]
