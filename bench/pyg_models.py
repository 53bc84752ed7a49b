"""SchNet and DimeNet++ of PyTorch Geometric, called like `SphereNet`.

Their neighbour search and their list of triplets need compiled extensions that PyTorch Geometric does not bring along.
Both get the neighbours from `spherenet_fast.graph.radius_graph` instead, inside the measured call as for every other
provider, and DimeNet++ its triplets from a few lines of PyTorch.
"""

from importlib.util import find_spec

import torch
from torch import Tensor, nn

from spherenet_fast.graph import radius_graph

NEEDS = {"pyg_schnet": ("torch_geometric",), "pyg_dimenet++": ("torch_geometric", "sympy", "scipy")}
# DimeNetPlusPlus has no defaults for these: the values of its paper, which SphereNet's share
DIMENET_WIDTHS = dict(
    hidden_channels=128, out_channels=1, num_blocks=4, int_emb_size=64, basis_emb_size=8, out_emb_channels=256,
    num_spherical=7, num_radial=6,
)  # fmt: skip


def installed() -> list[str]:
    """The providers of this module that can be built here."""
    return [name for name, packages in NEEDS.items() if all(find_spec(package) for package in packages)]


def build(provider: str) -> nn.Module:
    """SchNet with all of its class's defaults (cutoff 10 Å, 6 interactions), or DimeNet++ (cutoff 5 Å, 4 blocks)."""
    from torch_geometric.nn.models import dimenet, schnet

    if provider == "pyg_schnet":
        schnet.radius_graph = _edge_index
        return PygModel(schnet.SchNet())
    dimenet.radius_graph, dimenet.triplets = _edge_index, _triplets
    return PygModel(dimenet.DimeNetPlusPlus(**DIMENET_WIDTHS))


class PygModel(nn.Module):
    """A model that takes (z, pos, batch), under SphereNet's two methods."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, data) -> Tensor:
        return self.model(data.z, data.pos, data.batch)

    def energy_and_forces(self, data) -> tuple[Tensor, Tensor]:
        pos = data.pos.detach().requires_grad_()
        energy = self.model(data.z, pos, data.batch)
        (slope,) = torch.autograd.grad(energy.sum(), pos, create_graph=self.training)
        return (energy, -slope) if self.training else (energy.detach(), -slope)


def _edge_index(pos: Tensor, r: float, batch: Tensor | None = None, max_num_neighbors: int = 32) -> Tensor:
    """[2, E]: the stand-in for torch_geometric.nn.radius_graph."""
    return radius_graph(pos.detach(), batch, r, max_num_neighbors=max_num_neighbors).edge_index


def _triplets(edge_index: Tensor, num_nodes: int) -> tuple[Tensor, ...]:
    """The stand-in for torch_geometric.nn.models.dimenet.triplets: atoms i, j of the edges j->i [E], then atoms i, j,
    k and edges kj, ji of the triplets k->j->i with k != i [T]. edge_index [2, E] is sorted by receiver."""
    sender, receiver = edge_index
    degree = torch.bincount(receiver, minlength=num_nodes)
    first = degree.cumsum(0) - degree  # of the edges into each atom
    per_edge = degree[sender]
    ji = torch.repeat_interleave(per_edge)
    kj = torch.arange(len(ji), device=ji.device) - (per_edge.cumsum(0) - per_edge - first[sender])[ji]
    keep = sender[kj] != receiver[ji]
    ji, kj = ji[keep], kj[keep]
    return receiver, sender, receiver[ji], sender[ji], sender[kj], kj, ji
