"""The CUDA kernel of the torsion rule, run on the CPU: whom the torsion of each triplet is measured to."""

import math

import pytest
import torch
from cuda_operators import padded
from molecules import EXACT, around_one_edge, complete_graph
from operator_cases import GRAPHS, crowd

from spherenet_fast import ops
from spherenet_fast.graph import build_graph, edge_vectors, radius_graph
from spherenet_fast.ops import reference

DTYPES = [torch.float64, torch.float32]
ALL_GRAPHS = {**GRAPHS, "crowd": crowd()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ALL_GRAPHS)
def test_equals_the_specification(cuda_operators, name, dtype):
    vec, graph = ALL_GRAPHS[name]
    vec = vec.to(dtype)
    assert torch.equal(cuda_operators.torsion_reference(vec, graph), reference.torsion_reference(vec, graph))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", EXACT)
def test_exact_molecules(cuda_operators, name, dtype):
    """Planar, linear and symmetric ones, where many azimuths coincide but for rounding."""
    graph = complete_graph(len(EXACT[name][1]))
    vec = edge_vectors(EXACT[name][1].to(dtype), graph)
    found = cuda_operators.torsion_reference(vec, graph)
    assert torch.equal(found, reference.torsion_reference(vec, graph))
    assert torch.equal(found, ops.torsion_reference(vec, graph))


def clustered(seed, count=40):
    """Azimuths [count] in chains: neighbors a little more and a little less than the margin of 1e-4 apart.

    Every chain is longer than the margin, so who is tied depends on whom one asks; one lies across the zero.
    """
    generator = torch.Generator().manual_seed(seed)
    steps = 1e-4 * (0.2 + 1.1 * torch.rand(count, generator=generator, dtype=torch.float64))
    chains = torch.tensor([6.2827, 0.0, 2.0, math.pi])[torch.randint(4, (count,), generator=generator)]
    order = torch.randperm(count, generator=generator)  # so that numbers do not follow azimuths
    return (chains.double() + steps.cumsum(0) * 0.3)[order]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(40))
def test_chains_of_near_ties(cuda_operators, seed, dtype):
    """The same choice as the CPU's kernel, which walks along the sorted azimuths, and as the specification."""
    vec, graph = around_one_edge(clustered(seed), seed=seed)
    vec = vec.to(dtype)
    found = cuda_operators.torsion_reference(vec, graph)
    assert torch.equal(found, ops.torsion_reference(vec, graph))
    assert torch.equal(found, reference.torsion_reference(vec, graph))


def test_equal_azimuths(cuda_operators):
    """Bit for bit equal ones: a full turn apart, whichever way they are sorted."""
    vec, graph = around_one_edge([1.0, 1.0, 3.0, 1.0, 3.0])
    vec[0:5:3] = vec[0]
    vec[2] = vec[4]
    for some in (vec, vec[[1, 0, 4, 3, 2, 5]]):
        assert torch.equal(cuda_operators.torsion_reference(some, graph), ops.torsion_reference(some, graph))


@pytest.mark.parametrize("num_in, num_out", [(1023, 1), (1024, 2), (1025, 1), (1200, 2)])
def test_very_many_neighbors(cuda_operators, num_in, num_out):
    """As many as the azimuths kept in shared memory, and more."""
    edges = [(k + 1, 0) for k in range(num_in)] + [(0, k + 1) for k in range(num_out)]
    graph = build_graph(torch.tensor(edges).T, num_in + 1)
    vec = torch.randn(len(edges), 3, dtype=torch.float64)
    assert torch.equal(cuda_operators.torsion_reference(vec, graph), ops.torsion_reference(vec, graph))


@pytest.mark.parametrize("num_neighbors", [17, 33, 100])
def test_more_pairs_than_fit_at_once(cuda_operators, num_neighbors):
    pos = torch.cat([torch.zeros(1, 3).double(), torch.randn(num_neighbors, 3, dtype=torch.float64)])
    graph = radius_graph(pos, None, 10.0)
    keep = (graph.edge_index == 0).any(0)
    graph = build_graph(graph.edge_index[:, keep], len(pos))
    vec = edge_vectors(pos, graph)
    assert torch.equal(cuda_operators.torsion_reference(vec, graph), ops.torsion_reference(vec, graph))


@pytest.mark.parametrize("name", ["batch", "isolated last", "no edges"])
def test_padding_is_not_read(cuda_operators, name):
    vec, graph = GRAPHS[name]
    longer, larger = padded(vec, graph, 7)
    assert torch.equal(cuda_operators.torsion_reference(longer, larger), reference.torsion_reference(vec, graph))
