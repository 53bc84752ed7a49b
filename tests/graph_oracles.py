"""Slow, plain statements of what a graph must be, and structures to try them on."""

import itertools

import numpy as np
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list


def brute_force(pos, batch, cutoff):
    """Edges [2,E] in the order of the package, by looking at every pair of atoms."""
    edges = []
    for receiver, sender in itertools.product(range(len(pos)), repeat=2):
        same_structure = batch is None or batch[receiver] == batch[sender]
        if receiver != sender and same_structure and (pos[receiver].double() - pos[sender].double()).norm() < cutoff:
            edges.append((sender, receiver))
    return torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).T


def rows(graph):
    """The list as rows receiver, sender, shift."""
    columns = [graph.edge_index.flip(0)] + ([] if graph.shift is None else [graph.shift.T])
    return torch.cat(columns).T


def ase_rows(pos, cell, pbc, cutoff):
    """The same from ASE, whose vector of a pair (i, j, S) is pos[j] - pos[i] + S @ cell: i sends, j receives."""
    atoms = Atoms("H" * len(pos), positions=pos.double().numpy(), cell=cell.double().numpy(), pbc=pbc)
    sender, receiver, shift = neighbor_list("ijS", atoms, cutoff)
    found = np.concatenate([np.stack([receiver, sender], 1), shift], 1)
    return torch.from_numpy(found[np.lexsort(found.T[::-1])]).long()


def check(graph, num_nodes):
    """Everything that must hold in every graph, stated slowly."""
    sender, receiver = graph.edge_index
    num_edges = len(sender)
    indices = [graph.edge_index, graph.in_ptr, graph.out_ptr, graph.out_edge, graph.rev, graph.triplet_ptr]
    assert all(index.dtype == torch.int64 for index in indices)
    assert graph.edge_index.shape == (2, num_edges) and graph.rev.shape == graph.out_edge.shape == (num_edges,)
    assert graph.in_ptr.shape == graph.out_ptr.shape == graph.triplet_ptr.shape == (num_nodes + 1,)
    triplets = 0
    for node in range(num_nodes):
        inward = list(range(graph.in_ptr[node], graph.in_ptr[node + 1]))
        outward = graph.out_edge[graph.out_ptr[node] : graph.out_ptr[node + 1]].tolist()
        assert inward == (receiver == node).nonzero()[:, 0].tolist()
        assert outward == (sender == node).nonzero()[:, 0].tolist()
        assert graph.triplet_ptr[node] == triplets
        triplets += len(inward) * len(outward)
    assert type(graph.num_triplets) is int and graph.num_triplets == graph.triplet_ptr[-1] == triplets
    shift = torch.zeros(num_edges, 3, dtype=torch.int64) if graph.shift is None else graph.shift
    assert shift.dtype == torch.int64 and shift.shape == (num_edges, 3)
    keys = [(j, i, *s) for j, i, s in zip(sender.tolist(), receiver.tolist(), shift.tolist())]
    number = {key: edge for edge, key in enumerate(keys)}
    assert len(number) == num_edges
    opposite = [number.get((i, j, *[-n for n in s]), -1) for j, i, *s in number]
    assert graph.rev.tolist() == opposite


def random_batch(sizes, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pos = torch.rand(sum(sizes), 3, generator=generator, dtype=dtype) * 4
    return pos, torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))


def random_crystal(num_atoms, seed, scale):
    """Atoms in and around a random, not too flat, triclinic cell."""
    generator = np.random.default_rng(seed)
    cell = generator.normal(size=(3, 3))
    while abs(np.linalg.det(cell)) < 0.2 * np.prod(np.linalg.norm(cell, axis=1)):
        cell = generator.normal(size=(3, 3))
    cell *= scale / abs(np.linalg.det(cell)) ** (1 / 3)
    return torch.from_numpy(generator.uniform(-2, 3, (num_atoms, 3)) @ cell), torch.from_numpy(cell)
