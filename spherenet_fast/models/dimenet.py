"""DimeNet (Gasteiger et al., "Directional message passing for molecular graphs", ICLR 2020)."""

from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from ..nn import ranges
from ..nn.blocks import AtomOutput, Dense, EdgeEmbedding, EdgeUpdate, Geometry, RadialBasis, Residual
from ..nn.framework import SphericalMessagePassing, System
from .pyg import copied, dimenet_hparams, dimenet_state


class BilinearInteraction(EdgeUpdate):
    """One round of message passing between edges, with a bilinear form of messages and angles. e1 [E, H] -> e1, e2."""

    def __init__(
        self,
        hidden_channels: int,
        num_bilinear: int,
        num_spherical: int,
        num_radial: int,
        num_before_skip: int,
        num_after_skip: int,
    ):
        super().__init__()
        self.lin_rbf1 = Dense(num_radial, hidden_channels, bias=False)
        self.lin_sbf = Dense(num_spherical * num_radial, num_bilinear, bias=False)
        self.lin_rbf = Dense(num_radial, hidden_channels, bias=False)
        self.lin_kj = Dense(hidden_channels, hidden_channels)
        self.lin_ji = Dense(hidden_channels, hidden_channels)
        self.W = nn.Parameter(torch.randn(hidden_channels, num_bilinear, hidden_channels) * (2 / hidden_channels))
        self.layers_before_skip = nn.ModuleList(Residual(hidden_channels) for _ in range(num_before_skip))
        self.lin = Dense(hidden_channels, hidden_channels)
        self.layers_after_skip = nn.ModuleList(Residual(hidden_channels) for _ in range(num_after_skip))

    def forward(self, e1: Tensor, geometry: Geometry, operators) -> tuple[Tensor, Tensor]:
        x = self.lin_rbf1.times(self.lin_kj.silu(e1, operators), geometry.bessel, operators)
        # sum_q sum_bl W[i, b, l] s[q, b] x[q, l]: first over q, then, as one product, over all b and l
        num_bilinear, channels = self.lin_sbf.out_features, x.shape[1]
        of_gate = torch.eye(num_bilinear, dtype=x.dtype, device=x.device).repeat_interleave(channels, dim=0)
        sums = operators.gated_sum(
            x.repeat(1, num_bilinear), geometry.radial, geometry.direction, None, geometry.graph,
            self.lin_sbf.weight, of_gate, None, None, angle_at="receiver",
        )  # fmt: skip

        def after(e1, bessel, sums):  # [E, H], [E, K], [E, num_bilinear H] -> the next e1, e2
            h = self.lin_ji.silu(e1, operators) + operators.linear(sums, self.W.flatten(1))
            return self.end(h, e1, bessel, operators)

        return operators.row_chain(after, e1, geometry.bessel, sums, recompute=geometry.recompute)


class DimeNet(SphericalMessagePassing):
    """SMP without torsions, with a bilinear form of messages and angles.

    As 3DGN (Appendix B of the SphereNet paper), with u(d) the envelope:

        rho^{p->e} = Psi(d, theta):  u(d) sin(f_n d / cutoff)  and  u(d_q) j_l(z_ln d_q / cutoff) Y_l0(theta)
        phi^e:  e'_ji = MLP(MLP(e_ji) + sum over q of MLP(e_q)^T W Psi_q)
        rho^{e->v}:  the sum over the edges into i, of messages times a linear function of the distance basis
        phi^v:  v'_i = v_i + MLP(rho^{e->v})
        phi^u:  u = sum over the atoms of v_i

    theta is the angle at the receiver i between i->j and i->k, as in the authors' code and PyTorch Geometric's; that at
    j, which the paper's figure shows, came with DimeNet++.

    Args:
        num_bilinear: width to which the angle's basis is reduced.
        The others as in `DimeNetPlusPlus`, but for the widths that it has besides.

    `hparams` is the dict of these arguments. Raises ValueError or TypeError, naming the argument, for values out of
    range.
    """

    torsion = None

    def __init__(
        self,
        # the envelope of a short edge grows with the cutoff, and so do the messages in every block
        cutoff: Annotated[float, ranges.Range(1e-3, 100.0)] = 5.0,
        num_blocks: ranges.Layers = 6,
        hidden_channels: ranges.Width = 128,
        out_channels: ranges.Width = 1,
        num_bilinear: ranges.BasisWidth = 8,
        num_spherical: ranges.NumSpherical = 7,
        num_radial: ranges.NumRadial = 6,
        envelope_exponent: ranges.EnvelopeExponent = 5,
        num_before_skip: ranges.MoreLayers = 1,
        num_after_skip: ranges.MoreLayers = 2,
        num_output_layers: ranges.MoreLayers = 3,
        basis: Literal["paper", "dig"] = "paper",
        max_num_neighbors: ranges.MaxNeighbors = None,
        kernels: bool = True,
    ):
        super().__init__(cutoff, num_blocks)
        self.emb = RadialBasis(num_spherical, num_radial, cutoff, envelope_exponent, basis, enveloped=True)
        self.init_e = EdgeEmbedding(num_radial, hidden_channels)
        output = hidden_channels, None, out_channels, num_output_layers
        self.init_v = AtomOutput(*output)
        self.update_vs = nn.ModuleList(AtomOutput(*output) for _ in range(num_blocks))
        self.update_es = nn.ModuleList(
            BilinearInteraction(
                hidden_channels, num_bilinear, num_spherical, num_radial, num_before_skip, num_after_skip
            )
            for _ in range(num_blocks)
        )
        self.start_at_zero()

    @classmethod
    def from_pyg(cls, model: nn.Module) -> "DimeNet":
        """The same model as a `torch_geometric.nn.models.DimeNet`: the same energies, in its dtype and on its device.

        All neighbors within the cutoff count, where PyTorch Geometric keeps some 32 of them.
        Raises TypeError if it is no DimeNet; ValueError for an activation other than the SiLU.
        """
        hparams = dimenet_hparams(model, "DimeNet")
        hparams["num_bilinear"] = model.interaction_blocks[0].lin_sbf.out_features
        return copied(cls(**hparams), dimenet_state(model), model)

    def rho_pe(self, system: System) -> Geometry:
        # an angle at the receiver depends on the lengths of both edges: their vectors take the place of directions
        return super().rho_pe(system)._replace(direction=system.vec.to(system.dtype))
