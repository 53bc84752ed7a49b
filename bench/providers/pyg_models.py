"""SchNet, DimeNet and DimeNet++ of PyTorch Geometric, called like `SphereNet`.

Their neighbor search and their list of triplets need compiled extensions that PyTorch Geometric does not bring along.
All get the neighbors from `spherenet_fast.graph.radius_graph` instead, inside the measured call as for every other
provider, and the DimeNets their triplets from a few lines of PyTorch.
"""

from contextlib import contextmanager

import torch
from torch import Tensor, nn

from spherenet_fast.graph import radius_graph

NEEDS = {
    "pyg_schnet": ("torch_geometric",),
    "pyg_dimenet++": ("torch_geometric", "sympy", "scipy"),
    "pyg_dimenet": ("torch_geometric", "sympy", "scipy"),
}
# The classes have no defaults for these: the values of their papers, which SphereNet's share
SIZES = dict(hidden_channels=128, out_channels=1, num_spherical=7, num_radial=6)
WIDTHS = {
    "pyg_dimenet++": dict(num_blocks=4, int_emb_size=64, basis_emb_size=8, out_emb_channels=256),
    "pyg_dimenet": dict(num_blocks=6, num_bilinear=8),
}


def build(provider: str) -> nn.Module:
    """SchNet with all of its class's defaults (cutoff 10 Å, 6 interactions), or one of the DimeNets (cutoff 5 Å)."""
    from torch_geometric.nn.models import dimenet, schnet

    if provider == "pyg_schnet":
        schnet.radius_graph = _edge_index
        return PygModel(schnet.SchNet())
    dimenet.radius_graph, dimenet.triplets = _edge_index, _triplets
    if not hasattr(dimenet.scatter, "of_graphs"):
        dimenet.scatter = _sized(dimenet.scatter)
    model = dimenet.DimeNet if provider == "pyg_dimenet" else dimenet.DimeNetPlusPlus
    return PygModel(model(**SIZES, **WIDTHS[provider]))


class PygModel(nn.Module):
    """A model that takes (z, pos, batch), under SphereNet's two methods."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        if hasattr(model, "readout"):
            model.readout = SumOfAtoms()

    def forward(self, data, neighbors: tuple[Tensor, ...] | None = None) -> Tensor:
        with _given(data.num_graphs, neighbors):
            return self.model(data.z, data.pos, data.batch)

    def energy_and_forces(self, data, neighbors: tuple[Tensor, ...] | None = None) -> tuple[Tensor, Tensor]:
        pos = data.pos.detach().requires_grad_()
        with _given(data.num_graphs, neighbors):
            energy = self.model(data.z, pos, data.batch)
        (slope,) = torch.autograd.grad(energy.sum(), pos, create_graph=self.training)
        return (energy, -slope) if self.training else (energy.detach(), -slope)

    def neighbors(self, data) -> tuple[Tensor, ...]:
        """edge_index, and DimeNet++'s triplets, for calls that are not to search for them."""
        edge_index = _edge_index(data.pos, self.model.cutoff, data.batch)
        return edge_index, *(() if hasattr(self.model, "interactions") else _triplets(edge_index, len(data.z)))


class SumOfAtoms(nn.Module):
    """SchNet's readout [B, C] of atoms [N, C], which asks the GPU for the number of molecules."""

    def forward(self, h: Tensor, batch: Tensor, dim: int) -> Tensor:
        return h.new_zeros(_state["num_graphs"], h.shape[1]).index_add(dim, batch, h)


_state = {"num_graphs": None, "neighbors": None}  # of the call that is running


@contextmanager
def _given(num_graphs: int, neighbors: tuple[Tensor, ...] | None):
    _state.update(num_graphs=num_graphs, neighbors=neighbors)
    try:
        yield
    finally:
        _state.update(num_graphs=None, neighbors=None)


def _sized(scatter):
    """DimeNet++'s scatter; at its end it adds up molecules without saying how many there are."""

    def of_graphs(src: Tensor, index: Tensor, dim: int = 0, dim_size: int | None = None, reduce: str = "sum") -> Tensor:
        return scatter(src, index, dim, _state["num_graphs"] if dim_size is None else dim_size, reduce)

    of_graphs.of_graphs = True
    return of_graphs


def _edge_index(pos: Tensor, r: float, batch: Tensor | None = None, max_num_neighbors: int = 32) -> Tensor:
    """[2, E]: the stand-in for torch_geometric.nn.radius_graph. No molecule here has more neighbors than 32."""
    if _state["neighbors"]:
        return _state["neighbors"][0]
    return radius_graph(pos.detach(), batch, r).edge_index


def _triplets(edge_index: Tensor, num_nodes: int) -> tuple[Tensor, ...]:
    """The stand-in for torch_geometric.nn.models.dimenet.triplets: atoms i, j of the edges j->i [E], then atoms i, j,
    k and edges kj, ji of the triplets k->j->i with k != i [T]. edge_index [2, E] is sorted by receiver."""
    if _state["neighbors"]:
        return _state["neighbors"][1:]
    sender, receiver = edge_index
    degree = torch.bincount(receiver, minlength=num_nodes)
    first = degree.cumsum(0) - degree  # of the edges into each atom
    per_edge = degree[sender]
    ji = torch.repeat_interleave(per_edge)
    kj = torch.arange(len(ji), device=ji.device) - (per_edge.cumsum(0) - per_edge - first[sender])[ji]
    keep = sender[kj] != receiver[ji]
    ji, kj = ji[keep], kj[keep]
    return receiver, sender, receiver[ji], sender[ji], sender[kj], kj, ji
