"""SphereNet (Liu et al., "Spherical Message Passing for 3D Molecular Graphs", ICLR 2022)."""

import warnings
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from ..nn import ranges
from ..nn.basis import constant_of_bessel
from ..nn.blocks import AtomOutput, EdgeEmbedding, Interaction, RadialBasis
from ..nn.framework import SphericalMessagePassing
from ..nn.hparams import of_today


class SphereNet(SphericalMessagePassing):
    """Message passing between the edges of a molecule that sees distance, angle and torsion of every neighbor.

    Args:
        cutoff: atoms closer than this are neighbors, in the unit of the positions (Å).
        num_layers: rounds of message passing.
        hidden_channels: width H of the messages.
        out_channels: predicted numbers for each molecule.
        int_emb_size: width C of the messages while they meet the angles and torsions.
        basis_emb_size_dist, basis_emb_size_angle, basis_emb_size_torsion: widths to which the three bases are reduced.
        out_emb_channels: width of the output layers.
        num_spherical: L, 1 to 8: spherical harmonics of degree 0 to L - 1.
        num_radial: K, 1 to 16: radial functions for every degree.
        envelope_exponent: how smoothly the distance basis ends at the cutoff.
        num_before_skip, num_after_skip: residual layers of a round, before and after its skip connection.
        num_output_layers: dense layers between the sum over neighbors and the prediction.
        basis: "paper": the radial function of a harmonic has its degree l, Eq. (4); "dig": the pairing, and the
            rounding of the constants, of the code that the authors released. Their checkpoints need it.
        use_angle: False leaves out the basis of angles and its weights (the paper's ablation); a torsion needs it.
        torsion: what a neighbor's torsion is measured to. "smooth": a blend of all neighbors, which makes energies and
            forces continuous; "smooth_even": the same, and mirror images have the
            same energy; "paper": the next neighbor about the edge, as in Eq. (4), whose energies jump where a neighbor
            overtakes another; None leaves out the basis of torsions and its weights.
        use_torsion: False is torsion=None.
        max_num_neighbors: keep only so many nearest neighbors; None keeps all.
        kernels: False computes with the readable `spherenet_fast.ops.reference` instead of the fused kernels.

    `hparams` is the dict of these arguments: `SphereNet(**model.hparams)` has the same structure. The names and shapes
    in `state_dict()` are those of the released code; with the default values there are 1,898,566 parameters.

    Raises ValueError or TypeError, naming the argument, for values out of range.
    """

    unstated = {"torsion": "paper"}

    def __init__(
        self,
        cutoff: ranges.Cutoff = 5.0,
        num_layers: ranges.Layers = 4,
        hidden_channels: ranges.Width = 128,
        out_channels: ranges.Width = 1,
        int_emb_size: ranges.Width = 64,
        basis_emb_size_dist: ranges.BasisWidth = 8,
        basis_emb_size_angle: ranges.BasisWidth = 8,
        basis_emb_size_torsion: ranges.BasisWidth = 8,
        out_emb_channels: ranges.Width = 256,
        num_spherical: ranges.NumSpherical = 7,
        num_radial: ranges.NumRadial = 6,
        envelope_exponent: ranges.EnvelopeExponent = 5,
        num_before_skip: ranges.MoreLayers = 1,
        num_after_skip: ranges.MoreLayers = 2,
        num_output_layers: ranges.MoreLayers = 3,
        basis: Literal["paper", "dig"] = "paper",
        use_angle: bool = True,
        torsion: Literal["smooth", "smooth_even", "paper"] | None = "smooth",
        use_torsion: bool = True,
        max_num_neighbors: ranges.MaxNeighbors = None,
        kernels: bool = True,
    ):
        super().__init__(cutoff, num_layers)
        torsion = torsion if use_torsion else None
        self.use_angle, self.torsion = use_angle, torsion
        self.emb = RadialBasis(num_spherical, num_radial, cutoff, envelope_exponent, basis)
        self.init_e = EdgeEmbedding(num_radial, hidden_channels)
        output = hidden_channels, out_emb_channels, out_channels, num_output_layers
        self.init_v = AtomOutput(*output)
        self.update_vs = nn.ModuleList(AtomOutput(*output) for _ in range(num_layers))
        self.update_es = nn.ModuleList(
            Interaction(
                hidden_channels, int_emb_size, basis_emb_size_dist, basis_emb_size_angle, basis_emb_size_torsion,
                num_spherical, num_radial, num_before_skip, num_after_skip, use_angle, torsion, basis,
            )
            for _ in range(num_layers)
        )  # fmt: skip
        if torsion is not None:
            for block in self.update_es:
                block.start_near_one(constant_of_bessel(*self.emb.constants))
        self.start_at_zero()

    @classmethod
    def check_hparams(cls, hparams: Mapping[str, Any]) -> None:
        super().check_hparams(hparams)
        torsion = hparams.get("torsion") if hparams.get("use_torsion", True) else None
        if torsion is not None and not hparams.get("use_angle", True):
            raise ValueError(f"torsion: expected None where use_angle is False, got {torsion!r}")

    @classmethod
    def from_dig(cls, state_dict: Mapping[str, Tensor], **hparams: Any) -> "SphereNet":
        """A model with the weights of a checkpoint of DIG's SphereNet, the code that the authors released.

        state_dict: names as there ("update_es.0.lin_t1.weight", ...); hparams: what the checkpoint was trained with,
        wherever it differs from the default values; basis is "dig" and torsion "paper". The weights take torch's
        default dtype. Raises ValueError naming the first entries of `state_dict` that do not fit the hyper-parameters.
        """
        hparams.setdefault("torsion", "paper")
        if hparams.setdefault("basis", "dig") != "dig":
            raise ValueError(f'basis: expected "dig" for a checkpoint of DIG, got {hparams["basis"]!r}')
        model = cls(**hparams)
        expected = {name: list(value.shape) for name, value in model.state_dict().items()}
        found = {name: list(getattr(value, "shape", ())) for name, value in state_dict.items()}
        wrong = [
            f"{name}: expected {expected.get(name, 'no such entry')}, got {found.get(name, 'none')}"
            for name in [*expected, *(name for name in found if name not in expected)]
            if expected.get(name) != found.get(name)
        ]
        if wrong:
            more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
            raise ValueError(f"state_dict does not fit the hyper-parameters. {'; '.join(wrong[:4])}{more}")
        model.load_state_dict(state_dict)
        return model

    @classmethod
    def from_released(cls, state_dict: Mapping[str, Tensor], **hparams: Any) -> "SphereNet":
        """The former name of `from_dig`."""
        warnings.warn("from_released is deprecated: use from_dig", DeprecationWarning, stacklevel=2)
        return cls.from_dig(state_dict, **of_today(hparams))
