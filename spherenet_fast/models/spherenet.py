"""SphereNet (Liu et al., "Spherical Message Passing for 3D Graph Networks", ICLR 2022)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .. import ops, reference
from ..blocks import AtomOutput, EdgeEmbedding, Geometry, Interaction, RadialBasis
from ..graph import Graph, edge_vectors, radius_graph
from . import derivatives
from .inputs import Molecules, check_hparams, read_molecules


class SphereNet(nn.Module):
    """Message passing between the edges of a molecule that sees distance, angle and torsion of every neighbour.

    Args:
        cutoff: atoms closer than this are neighbours, in the unit of the positions (Å).
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
        num_output_layers: dense layers between the sum over neighbours and the prediction.
        basis: "paper": the radial function of a harmonic has its degree l, Eq. (4); "released": the pairing, and the
            rounding of the constants, of the code that the authors released. Their checkpoints need it.
        use_angle, use_torsion: False leaves those bases and their weights out (the paper's ablations); a torsion
            needs the angle.
        max_num_neighbors: keep only so many nearest neighbours; None keeps all.
        kernels: False computes with the readable `spherenet_fast.reference` instead of the fused kernels.

    `hparams` is the dict of these arguments: `SphereNet(**model.hparams)` has the same structure. The names and shapes
    in `state_dict()` are those of the released code; with the default values there are 1,898,566 parameters.

    Raises ValueError or TypeError, naming the argument, for values out of range.
    """

    def __init__(
        self,
        cutoff: float = 5.0,
        num_layers: int = 4,
        hidden_channels: int = 128,
        out_channels: int = 1,
        int_emb_size: int = 64,
        basis_emb_size_dist: int = 8,
        basis_emb_size_angle: int = 8,
        basis_emb_size_torsion: int = 8,
        out_emb_channels: int = 256,
        num_spherical: int = 7,
        num_radial: int = 6,
        envelope_exponent: int = 5,
        num_before_skip: int = 1,
        num_after_skip: int = 2,
        num_output_layers: int = 3,
        basis: str = "paper",
        use_angle: bool = True,
        use_torsion: bool = True,
        max_num_neighbors: int | None = None,
        kernels: bool = True,
    ):
        hparams = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        check_hparams(hparams)
        self.hparams = hparams
        self.emb = RadialBasis(num_spherical, num_radial, cutoff, envelope_exponent, basis)
        self.init_e = EdgeEmbedding(num_radial, hidden_channels)
        output = hidden_channels, out_emb_channels, out_channels, num_output_layers
        self.init_v = AtomOutput(*output)
        self.update_vs = nn.ModuleList(AtomOutput(*output) for _ in range(num_layers))
        self.update_es = nn.ModuleList(
            Interaction(
                hidden_channels, int_emb_size, basis_emb_size_dist, basis_emb_size_angle, basis_emb_size_torsion,
                num_spherical, num_radial, num_before_skip, num_after_skip, use_angle, use_torsion, basis,
            )
            for _ in range(num_layers)
        )  # fmt: skip

    @classmethod
    def from_released(cls, state_dict: Mapping[str, Tensor], **hparams: Any) -> "SphereNet":
        """A model with the weights of a checkpoint of the authors' released code.

        state_dict: names as there ("update_es.0.lin_t1.weight", ...); hparams: what the checkpoint was trained with,
        wherever it differs from the default values; basis is "released". The weights take torch's default dtype.
        Raises ValueError naming the first entries of `state_dict` that do not fit the hyper-parameters.
        """
        if hparams.setdefault("basis", "released") != "released":
            raise ValueError(f'basis: expected "released" for a released checkpoint, got {hparams["basis"]!r}')
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

    def forward(self, data: Any, graph: Graph | None = None) -> Tensor:
        """The prediction for every molecule.

        data: anything with z [N] int64 (atomic numbers 1 to 94), pos [N, 3] (Å, dtype of the model), batch [N] int64
        ascending (None: one molecule), and optionally cell [B, 3, 3] or [3, 3] (Å), pbc [B, 3] or [3] bool, num_graphs
        (int; else counted from batch). A PyTorch Geometric Data or Batch, or a dict, will do.
        graph: the neighbours, where they are known already; else found with `radius_graph`.
        Returns [num_graphs, out_channels]. Raises ValueError or TypeError naming what is wrong with data.
        """
        molecules = read_molecules(data, self.init_e.emb.weight)
        return self._predict(molecules, graph)

    def energy_and_forces(self, data: Any, graph: Graph | None = None) -> tuple[Tensor, Tensor]:
        """The prediction, as an energy, and the forces on the atoms: minus its derivative by the positions.

        data, graph: as in `forward`; data is left as it is. Returns energy [num_graphs, out_channels] and forces
        [N, 3], those of the sum of all energies. While `model.training`, both can be differentiated again (by pos, too,
        if it requires a gradient); else both are detached. Works under `torch.no_grad()` and `torch.inference_mode()`.
        """
        weight = self.init_e.emb.weight
        return derivatives.energy_and_forces(self._predict, data, weight, graph, self.training)

    def energy_forces_stress(self, data: Any, graph: Graph | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """`energy_and_forces`, and the stress of every structure: its derivative by strain over the volume of its cell.

        data, graph: as in `forward`; every structure needs a cell. Returns energy and forces as `energy_and_forces`,
        under the same conditions, and stress [num_graphs, 3, 3] in energy/Å^3: symmetric, positive where the cell would
        rather shrink. Raises ValueError where there is no cell, or one without a volume.
        """
        weight = self.init_e.emb.weight
        return derivatives.energy_forces_stress(self._predict, data, weight, graph, self.training)

    def _predict(self, molecules: Molecules, graph: Graph | None) -> Tensor:
        """[num_graphs, out_channels]."""
        operators = ops if self.hparams["kernels"] else reference
        z, pos, batch, num_graphs, cell, pbc = molecules
        if graph is None:
            graph = radius_graph(pos, batch, self.emb.cutoff, cell, pbc, self.hparams["max_num_neighbors"])
        elif len(graph.in_ptr) != len(z) + 1:
            raise ValueError(f"graph: expected one of {len(z)} atoms, as in data, got {len(graph.in_ptr) - 1}")
        with torch.autocast(pos.device.type, enabled=False):  # positions and what is made of them keep their precision
            # In float64 until there are unit vectors: along a line the energy is steep in their last digits.
            vec = edge_vectors(pos.double(), graph, batch, None if cell is None else cell.double())
            geometry = self._geometry(vec, graph, operators, pos.dtype)

        e1, e2 = self.init_e(z, geometry, operators)
        v = self.init_v(e2, graph, operators).to(pos.dtype)  # under autocast, too, the sums are not rounded
        for update_e, update_v in zip(self.update_es, self.update_vs, strict=True):
            e1, e2 = update_e(e1, geometry, operators)
            v = v + update_v(e2, graph, operators)
        first_atom = torch.searchsorted(batch, torch.arange(num_graphs + 1, device=batch.device))
        return operators.segment_sum(v, first_atom, None, batch)

    def _geometry(self, vec: Tensor, graph: Graph, operators, dtype: torch.dtype) -> Geometry:
        """vec [E, 3] float64, from sender to receiver -> what the blocks need of it, in dtype."""
        distance = vec.square().sum(-1).sqrt()
        bessel, radial = self.emb(distance.to(dtype), operators)
        if not self.hparams["use_angle"]:
            return Geometry(graph, bessel, None, None, None)
        torsion = operators.torsion_reference(vec.detach(), graph) if self.hparams["use_torsion"] else None
        return Geometry(graph, bessel, radial, (vec / distance[:, None]).to(dtype), torsion)
