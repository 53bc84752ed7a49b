"""SchNet (Schuett et al., "SchNet: A continuous-filter convolutional neural network", NeurIPS 2017)."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..graph.unique_distances import UniqueDistances, unique_distances
from ..nn import ranges
from ..nn.blocks import Dense, shifted_softplus
from ..nn.framework import GraphNetwork3D, System
from ..nn.ranges import NUM_ELEMENTS
from .pyg import copied, refuse


class Distances(NamedTuple):
    """What SchNet's edges see of the positions."""

    gaussians: Tensor  # [M, K]
    cutoff: Tensor  # [M, 1], 1 at distance 0 and 0 at the cutoff
    unique: UniqueDistances  # M


class Filter(nn.Module):
    """W(d) = lin2(ssp(lin1(gaussians))) f(d), and what is around it in a layer."""

    def __init__(self, hidden_channels: int, num_filters: int, num_gaussians: int):
        super().__init__()
        self.filter1 = Dense(num_gaussians, num_filters)
        self.filter2 = Dense(num_filters, num_filters)
        self.lin1 = Dense(hidden_channels, num_filters, bias=False)
        self.lin2 = Dense(num_filters, hidden_channels)
        self.lin = Dense(hidden_channels, hidden_channels)


class SchNet(GraphNetwork3D):
    """Messages are the sender's features times a filter, which is a function of the distance d of the edge.

    As 3DGN (Appendix B of the SphereNet paper; ssp(x) = ln((1 + e^x) / 2), K Gaussians mu_n from 0 to the cutoff):

        rho^{p->e} = Psi(d):  g_n = exp(-gamma (d - mu_n)^2),  f = (cos(pi d / cutoff) + 1) / 2
        phi^e:  e'_k = (W v_{s_k}) * f MLP(g)
        rho^{e->v}:  the sum over the edges into i
        phi^v:  v'_i = v_i + MLP(rho^{e->v})
        phi^u:  u = sum over the atoms of MLP(v_i)

    Args:
        cutoff: atoms closer than this are neighbors, in the unit of the positions (Å).
        num_interactions: layers.
        hidden_channels: width of the atoms' features.
        num_filters: width of the messages.
        num_gaussians: K, 2 or more.
        out_channels: predicted numbers for each molecule.
        max_num_neighbors: keep only so many nearest neighbors; None keeps all.
        kernels: False computes with the readable `spherenet_fast.ops.reference` instead of the fused kernels.

    `hparams` is the dict of these arguments. Raises ValueError or TypeError, naming the argument, for values out of
    range.
    """

    renamed_weights = {"centres": "centers"}

    def __init__(
        self,
        cutoff: ranges.Cutoff = 10.0,
        num_interactions: ranges.Layers = 6,
        hidden_channels: ranges.Width = 128,
        num_filters: ranges.Width = 128,
        num_gaussians: ranges.NumGaussians = 50,
        out_channels: ranges.Width = 1,
        max_num_neighbors: ranges.MaxNeighbors = None,
        kernels: bool = True,
    ):
        super().__init__(cutoff, num_interactions)
        self.emb = nn.Embedding(NUM_ELEMENTS, hidden_channels)
        self.interactions = nn.ModuleList(
            Filter(hidden_channels, num_filters, num_gaussians) for _ in range(num_interactions)
        )
        self.lin1 = Dense(hidden_channels, max(1, hidden_channels // 2))
        self.lin2 = Dense(max(1, hidden_channels // 2), out_channels)
        nn.init.zeros_(self.lin2.weight)  # an untrained model predicts 0
        # in the state: those of a model from elsewhere may be rounded
        self.register_buffer("centers", torch.linspace(0, cutoff, num_gaussians))
        self.register_buffer("gamma", torch.tensor(0.5 * ((num_gaussians - 1) / cutoff) ** 2))

    @classmethod
    def from_pyg(cls, model: nn.Module) -> "SchNet":
        """The same model as a `torch_geometric.nn.models.SchNet`: the same energies, in its dtype and on its device.

        All neighbors within the cutoff count, where PyTorch Geometric keeps some 32 of them.
        Raises TypeError if it is no SchNet; ValueError for a readout other than the sum, dipoles, atomic references, or
        a graph or scale of its own.
        """
        refuse(model, "SchNet", dipole=False, atomref=None, scale=None)
        if model.hidden_channels < 2:
            raise ValueError(f"model.hidden_channels: expected at least 2, got {model.hidden_channels}")
        for attribute, expected in (("readout", "SumAggregation"), ("interaction_graph", "RadiusInteractionGraph")):
            found = type(getattr(model, attribute)).__name__
            if found != expected:
                raise ValueError(f"model.{attribute}: expected {expected}, got {found}")
        names = "hidden_channels", "num_filters", "num_interactions", "num_gaussians", "cutoff"
        own = cls(**{name: getattr(model, name) for name in names})
        theirs = model.state_dict()
        renamed = {"emb.weight": theirs["embedding.weight"][:NUM_ELEMENTS]}
        renamed["centers"] = theirs["distance_expansion.offset"]
        renamed["gamma"] = -torch.tensor(model.distance_expansion.coeff, dtype=torch.float64)
        renamed |= {name: theirs[name] for name in ("lin1.weight", "lin1.bias", "lin2.weight", "lin2.bias")}
        if model.mean is not None and model.std is not None:
            renamed["lin2.weight"] = theirs["lin2.weight"] * model.std
            renamed["lin2.bias"] = theirs["lin2.bias"] * model.std + model.mean
        # Their ln 2 is rounded to float32. What that adds to all inputs of a layer goes into its bias.
        excess = torch.tensor(2.0).log().double() - math.log(2)
        layers = {"mlp.0": "filter1", "mlp.2": "filter2", "conv.lin1": "lin1", "conv.lin2": "lin2", "lin": "lin"}
        for number in range(model.num_interactions):
            for layer, name in layers.items():
                for kind in ("weight", "bias")[: 1 if name == "lin1" else 2]:
                    renamed[f"interactions.{number}.{name}.{kind}"] = theirs[f"interactions.{number}.{layer}.{kind}"]
        for name in [
            "lin2",
            *(
                f"interactions.{number}.{name}"
                for number in range(model.num_interactions)
                for name in ("filter2", "lin")
            ),
        ]:
            weight, bias = (renamed[f"{name}.{kind}"].double() for kind in ("weight", "bias"))
            renamed[f"{name}.bias"] = bias - excess * weight.sum(1)
        return copied(own, renamed, model)

    def parameter_like(self) -> Tensor:
        return self.emb.weight

    def rho_pe(self, system: System) -> Distances:
        unique = unique_distances(system.graph, system.distance.to(system.dtype))
        gaussians = torch.exp(-self.gamma * (unique.distance - self.centers).square())
        return Distances(gaussians, 0.5 * (torch.cos(unique.distance * (math.pi / self.cutoff)) + 1), unique)

    def embed(self, system: System, p_e: Distances) -> tuple[Tensor, None]:
        return self.emb(system.z), None

    def phi_e(self, layer: int, e: Tensor | None, v: Tensor, p_e: Distances, system: System) -> Tensor:
        block, operators = self.interactions[layer], system.operators
        gate = shifted_softplus(block.filter1(p_e.gaussians, operators))
        gate = block.filter2(gate, operators) * p_e.cutoff
        return system.of_senders(block.lin1(v, operators)) * p_e.unique.to_edges(gate, operators)

    def phi_v(self, layer: int, v: Tensor, e_v: Tensor, p_v: None, system: System) -> Tensor:
        block, operators = self.interactions[layer], system.operators
        return v + block.lin(shifted_softplus(block.lin2(e_v, operators)), operators)

    def atom_readout(self, v: Tensor, system: System) -> Tensor:
        v = shifted_softplus(self.lin1(v, system.operators))
        return self.lin2(v, system.operators)
