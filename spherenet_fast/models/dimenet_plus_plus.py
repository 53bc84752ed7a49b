"""DimeNet++ (Gasteiger et al., "Fast and uncertainty-aware directional message passing", NeurIPS workshop 2020)."""

from typing import Literal

import torch
from torch import nn

from ..nn import ranges
from ..nn.blocks import AtomOutput, EdgeEmbedding, Interaction, RadialBasis
from ..nn.framework import SphericalMessagePassing
from .pyg import copied, dimenet_hparams, dimenet_state


class DimeNetPlusPlus(SphericalMessagePassing):
    """SMP without torsions: Psi(d, theta), theta being the angle at j between k and i for k->j and j->i.

    As 3DGN (Appendix B of the SphereNet paper), with u(d) the envelope:

        rho^{p->e} = Psi(d, theta):  u(d) sin(f_n d / cutoff)  and  u(d_q) j_l(z_ln d_q / cutoff) Y_l0(theta)
        phi^e:  e'_ji = MLP(MLP(e_ji) + W sum over q of MLP(e_q) * W Psi_q)
        rho^{e->v}:  the sum over the edges into i, of messages times a linear function of the distance basis
        phi^v:  v'_i = v_i + MLP(rho^{e->v})
        phi^u:  u = sum over the atoms of v_i

    Args:
        cutoff: atoms closer than this are neighbors, in the unit of the positions (Å).
        num_blocks: layers.
        hidden_channels: width H of the messages.
        out_channels: predicted numbers for each molecule.
        int_emb_size: width C of the messages while they meet the angles.
        basis_emb_size: width to which both bases are reduced.
        out_emb_channels: width of the output layers.
        num_spherical: L, 1 to 8: harmonics of degree 0 to L - 1.
        num_radial: K, 1 to 16: radial functions for every degree.
        envelope_exponent: how smoothly the bases end at the cutoff.
        num_before_skip, num_after_skip: residual layers of a block, before and after its skip connection.
        num_output_layers: dense layers between the sum over neighbors and the prediction.
        basis: "paper": exact roots and norms of the Bessel functions; "dig": rounded as in the released code.
        max_num_neighbors: keep only so many nearest neighbors; None keeps all.
        kernels: False computes with the readable `spherenet_fast.ops.reference` instead of the fused kernels.

    `hparams` is the dict of these arguments. Raises ValueError or TypeError, naming the argument, for values out of
    range.
    """

    torsion = None

    def __init__(
        self,
        cutoff: ranges.Cutoff = 5.0,
        num_blocks: ranges.Layers = 4,
        hidden_channels: ranges.Width = 128,
        out_channels: ranges.Width = 1,
        int_emb_size: ranges.Width = 64,
        basis_emb_size: ranges.BasisWidth = 8,
        out_emb_channels: ranges.Width = 256,
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
        output = hidden_channels, out_emb_channels, out_channels, num_output_layers, False
        self.init_v = AtomOutput(*output)
        self.update_vs = nn.ModuleList(AtomOutput(*output) for _ in range(num_blocks))
        self.update_es = nn.ModuleList(
            Interaction(
                hidden_channels, int_emb_size, basis_emb_size, basis_emb_size, basis_emb_size, num_spherical,
                num_radial, num_before_skip, num_after_skip, True, None, basis,
            )
            for _ in range(num_blocks)
        )  # fmt: skip
        self.start_at_zero()

    @classmethod
    def from_pyg(cls, model: nn.Module) -> "DimeNetPlusPlus":
        """The same model as a `torch_geometric.nn.models.DimeNetPlusPlus`: the same energies, in its dtype, on its
        device.

        All neighbors within the cutoff count, where PyTorch Geometric keeps some 32 of them.
        Raises TypeError if it is no DimeNetPlusPlus; ValueError for an activation other than the SiLU.
        """
        hparams = dimenet_hparams(model, "DimeNetPlusPlus")
        block, output = model.interaction_blocks[0], model.output_blocks[0]
        hparams["int_emb_size"] = block.lin_down.out_features
        hparams["basis_emb_size"] = block.lin_rbf1.out_features
        hparams["out_emb_channels"] = output.lin_up.out_features
        state = dimenet_state(model)
        # Its angle is that between the directions of travel, pi - theta: Y_l0 changes its sign where l is odd.
        sign = (-1.0) ** torch.arange(hparams["num_spherical"]).repeat_interleave(hparams["num_radial"])
        for number in range(hparams["num_blocks"]):
            state[f"update_es.{number}.lin_sbf1.weight"] *= sign.to(state[f"update_es.{number}.lin_sbf1.weight"])
        return copied(cls(**hparams), state, model)
