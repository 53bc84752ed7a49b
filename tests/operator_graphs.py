"""The graphs that operators are tried on. Importing them takes no package that is optional."""

import torch
from molecules import complete_graph, rattled, rattled_batch, rotation

from spherenet_fast.graph import build_graph, edge_vectors, radius_graph


def _of_molecule(pos, cutoff, batch=None):
    graph = radius_graph(pos, batch, cutoff)
    return edge_vectors(pos, graph), graph


def _batch():
    data = rattled_batch((6, 9, 1, 4), seed=2)
    return _of_molecule(data.pos, 3.5, data.batch)


def _star():
    """One atom with 60 neighbors that do not see each other."""
    leaves = torch.randn(60, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    pos = torch.cat([torch.zeros(1, 3).double(), 2 * leaves / leaves.norm(dim=1, keepdim=True)])
    leaf, center = torch.arange(1, 61), torch.zeros(60, dtype=torch.int64)
    graph = build_graph(torch.stack([torch.cat([leaf, center]), torch.cat([center, leaf])]), 61)
    return edge_vectors(pos, graph), graph


def _line():
    pos = torch.arange(6.0).double()[:, None] * torch.tensor([[1.1, 0, 0]], dtype=torch.float64) @ rotation(0)
    return _of_molecule(pos, 4.0)


def _isolated(atom):
    pos = rattled(6, 4)
    pos[atom] += 50
    return _of_molecule(pos, 6.0)


def _not_symmetric():
    """A molecule's graph that lost a third of its edges, and with them the reverses of others."""
    vec, graph = _of_molecule(rattled(8, 5), 4.0)
    keep = torch.arange(graph.edge_index.shape[1]) % 3 != 1
    return vec[keep], build_graph(graph.edge_index[:, keep], 8)


def _periodic():
    """Two atoms in a cell so small that both see several images of themselves."""
    cell = torch.tensor([[2.6, 0.2, -0.1], [0.5, 2.9, 0.3], [-0.4, 0.6, 3.1]], dtype=torch.float64)
    pos = torch.tensor([[0.1, 0.2, 0.3], [1.4, 1.1, 1.9]], dtype=torch.float64)
    # by all distances, because the search for periodic neighbors needs a package that a GPU's machine may lack
    shift = torch.cartesian_prod(*[torch.arange(-2, 3)] * 3)
    vec = pos[:, None, None] - pos[None, :, None] + shift.double() @ cell  # [receiver, sender, image, 3]
    length = vec.norm(dim=-1)
    receiver, sender, image = ((length > 0) & (length < 3.6)).nonzero(as_tuple=True)
    graph = build_graph(torch.stack([sender, receiver]), 2, shift[image])
    assert (graph.edge_index[0] == graph.edge_index[1]).any()
    return edge_vectors(pos, graph, None, cell), graph


def _directed(edges, num_atoms):
    graph = build_graph(torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).T, num_atoms)
    return edge_vectors(rattled(num_atoms, 6), graph), graph


def _empty(num_atoms):
    return _of_molecule(10 * torch.arange(3.0 * num_atoms).double().reshape(num_atoms, 3), 4.0)


def crowd():
    """24 atoms: 10,000 triplets, which the kernels cut into several chunks."""
    return _of_molecule(rattled(24, 1, 2.0), 6.0)


def chain(num_atoms):
    """Atoms along a zigzag that see the two before and the two after them."""
    number = torch.arange(num_atoms, dtype=torch.float64)
    return _of_molecule(torch.stack([1.2 * number, 0.5 * (number % 2), 0.3 * (number % 3)], dim=1), 2.8)


_CASES = {
    "batch": _batch,
    "star": _star,
    "line": _line,
    "isolated first": lambda: _isolated(0),
    "isolated middle": lambda: _isolated(3),
    "isolated last": lambda: _isolated(5),
    "not symmetric": _not_symmetric,
    "periodic": _periodic,
    "one edge": lambda: _directed([(0, 1)], 2),
    "one pair of atoms": lambda: _directed([(1, 0), (0, 1)], 2),
    "three triplets": lambda: _directed([(0, 1), (2, 1), (3, 1), (1, 4)], 5),
    "no edges": lambda: _empty(3),
    "no atoms": lambda: _empty(0),
}
GRAPHS = {name: make() for name, make in _CASES.items()}  # name -> vec [E, 3] float64, graph


def small_graph():
    """vec [12, 3], graph of four atoms that all see each other: small enough for gradcheck, far from any tie."""
    graph = complete_graph(4)
    return edge_vectors(rattled(4, 1), graph), graph


def on_device(graph, device):
    """A graph with its arrays on a device."""
    return type(graph)(*(value.to(device) if isinstance(value, torch.Tensor) else value for value in graph))


def padded(vec, graph, extra):
    """A graph of fixed capacity: `extra` edges past the end of in_ptr, of no atom and with NaN for vectors.

    Returns vec [E + extra, 3] and the graph.
    """
    more = torch.arange(len(vec), len(vec) + extra)
    graph = graph._replace(
        edge_index=torch.cat([graph.edge_index, torch.zeros(2, extra, dtype=torch.int64)], dim=1),
        out_edge=torch.cat([graph.out_edge, more]),
        rev=torch.cat([graph.rev, torch.full_like(more, -1)]),
    )
    return torch.cat([vec, vec.new_full((extra, 3), torch.nan)]), graph
