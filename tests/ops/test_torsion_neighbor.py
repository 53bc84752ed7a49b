"""The torsion rule in the kernel: whom the torsion of each triplet is measured to."""

import math

import pytest
import torch
from molecules import EXACT, around_one_edge, complete_graph, rattled, rotation
from operator_cases import strided
from operator_graphs import GRAPHS, crowd, padded

from spherenet_fast import ops
from spherenet_fast.graph import build_graph, edge_vectors, radius_graph
from spherenet_fast.ops import reference

NO_REFERENCE, VANISHING = -1, -2
DTYPES = [torch.float64, torch.float32]
ALL_GRAPHS = {**GRAPHS, "crowd": crowd()}


def pairs(graph):
    """q, e and center of every pair [num_triplets]."""
    found = [
        (q, int(e), j)
        for j in range(len(graph.in_ptr) - 1)
        for q in range(graph.in_ptr[j], graph.in_ptr[j + 1])
        for e in graph.out_edge[graph.out_ptr[j] : graph.out_ptr[j + 1]]
    ]
    return torch.tensor(found).reshape(-1, 3).T


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", GRAPHS)
def test_equals_the_specification(name, dtype):
    vec, graph = GRAPHS[name]
    vec = vec.to(dtype)
    found = ops.torsion_neighbor(vec, graph)
    assert found.dtype == torch.int32 and found.shape == (graph.num_triplets,)
    assert torch.equal(found, reference.torsion_neighbor(vec, graph))


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_specification_in_a_crowd(seed):
    pos = rattled(20, seed, 2.0)
    graph = radius_graph(pos, None, 5.0)
    vec = edge_vectors(pos, graph)
    assert torch.equal(ops.torsion_neighbor(vec, graph), reference.torsion_neighbor(vec, graph))


@pytest.mark.parametrize("name", EXACT)
def test_does_not_depend_on_orientation_or_precision(name):
    _, pos = EXACT[name]
    graph = complete_graph(len(pos))
    expected = reference.torsion_neighbor(edge_vectors(pos, graph), graph)
    for seed in range(20):
        for dtype in DTYPES:
            vec = edge_vectors((pos @ rotation(seed) + 3).to(dtype), graph)
            assert torch.equal(ops.torsion_neighbor(vec, graph), expected)


def turns(azimuths):
    """Angle from each neighbor on to each other one, in [DELTA, 2 pi + DELTA): [own, other]."""
    angle = torch.remainder(azimuths[None, :] - azimuths[:, None], 2 * math.pi)
    return torch.where(angle < 1e-4, angle + 2 * math.pi, angle)


@pytest.mark.parametrize("seed", range(10))
def test_clusters_of_azimuths(seed):
    """Many neighbors a little more and a little less than the margin apart, also across the zero of the azimuth."""
    generator = torch.Generator().manual_seed(seed)
    centers = torch.tensor([0.0, 0.0, 2.0, 3.1415926, 6.2831])[torch.randint(5, (30,), generator=generator)]
    spread = 10.0 ** -torch.randint(3, 7, (30,), generator=generator)
    azimuths = (centers + spread * torch.randn(30, generator=generator)).double()
    vec, graph = around_one_edge(azimuths, seed=seed)
    angle = turns(azimuths).fill_diagonal_(math.inf)
    smallest = angle.amin(dim=1, keepdim=True)
    expected = (angle < smallest + 1e-4).int().argmax(dim=1)  # the first one that is tied
    # no difference of two azimuths is so close to the margin that rounding decides
    assert ((angle - smallest - 1e-4).abs() > 1e-12).all()
    assert torch.equal(ops.torsion_neighbor(vec, graph).long(), expected)


def test_ties_are_broken_by_the_edge_number():
    vec, graph = around_one_edge([0.0, 1.0, 1.0, 1.0 - 5e-5, 4.0])
    # 0: those near 1.0 are tied and 1 is the lowest; 1, 2, 3: each other a full turn away, 4 is next; 4: 0
    assert ops.torsion_neighbor(vec, graph).tolist() == [1, 4, 4, 4, 0]
    assert ops.torsion_neighbor(vec.float(), graph).tolist() == [1, 4, 4, 4, 0]


def test_collinear_neighbors():
    # 0.99e-5 and 1.01e-5 lie on either side of the margin
    vec, graph = around_one_edge([0.0, 1.0, 2.0, 3.0, 4.0], across=[1.0, 0.99e-5, 1.0, 1.01e-5, 0.0])
    assert ops.torsion_neighbor(vec, graph).tolist() == [2, VANISHING, 3, 0, VANISHING]


def test_alone_is_a_full_turn():
    vec, graph = around_one_edge([1.0])
    assert ops.torsion_neighbor(vec, graph).tolist() == [NO_REFERENCE]


@pytest.mark.parametrize("name", ["batch", "periodic", "not symmetric", "star"])
def test_never_itself_nor_the_reverse_edge(name):
    vec, graph = GRAPHS[name]
    found = ops.torsion_neighbor(vec, graph).long()
    q, e, j = pairs(graph)
    neighbor = torch.where(found >= 0, graph.in_ptr[j] + found, -7)
    assert (neighbor != q).all() and (neighbor != graph.rev[e]).all()
    assert (found[q == graph.rev[e]] == VANISHING).all()
    assert (neighbor < graph.in_ptr[j + 1]).all()


def test_torsions_around_an_edge_add_up_to_a_turn():
    vec, graph = crowd()
    direction = vec / vec.norm(dim=1, keepdim=True)
    found = ops.torsion_neighbor(vec, graph)
    _, re, im = reference.triplet_geometry(direction, found, graph)
    q, e, _ = pairs(graph)
    measured = found != VANISHING
    torsion = torch.remainder(torch.atan2(im, re), 2 * math.pi)[measured]
    total = torch.zeros(len(vec)).double().index_add(0, e[measured], torsion)
    # twenty rounded angles
    torch.testing.assert_close(total, torch.full_like(total, 2 * math.pi), rtol=0, atol=1e-11)


def test_strided_vectors():
    vec, graph = GRAPHS["batch"]
    assert torch.equal(ops.torsion_neighbor(strided(vec), graph), ops.torsion_neighbor(vec, graph))


def test_has_no_derivative():
    vec, graph = GRAPHS["batch"]
    assert not ops.torsion_neighbor(vec.clone().requires_grad_(), graph).requires_grad


# ---- the CUDA kernel, run on the CPU ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ALL_GRAPHS)
def test_cuda_equals_the_specification(cuda_operators, name, dtype):
    vec, graph = ALL_GRAPHS[name]
    vec = vec.to(dtype)
    assert torch.equal(cuda_operators.torsion_neighbor(vec, graph), reference.torsion_neighbor(vec, graph))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", EXACT)
def test_cuda_of_exact_molecules(cuda_operators, name, dtype):
    """Planar, linear and symmetric ones, where many azimuths coincide but for rounding."""
    graph = complete_graph(len(EXACT[name][1]))
    vec = edge_vectors(EXACT[name][1].to(dtype), graph)
    found = cuda_operators.torsion_neighbor(vec, graph)
    assert torch.equal(found, reference.torsion_neighbor(vec, graph))
    assert torch.equal(found, ops.torsion_neighbor(vec, graph))


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
def test_cuda_of_chains_of_near_ties(cuda_operators, seed, dtype):
    """The same choice as the CPU's kernel, which walks along the sorted azimuths, and as the specification."""
    vec, graph = around_one_edge(clustered(seed), seed=seed)
    vec = vec.to(dtype)
    found = cuda_operators.torsion_neighbor(vec, graph)
    assert torch.equal(found, ops.torsion_neighbor(vec, graph))
    assert torch.equal(found, reference.torsion_neighbor(vec, graph))


def test_cuda_of_equal_azimuths(cuda_operators):
    """Bit for bit equal ones: a full turn apart, whichever way they are sorted."""
    vec, graph = around_one_edge([1.0, 1.0, 3.0, 1.0, 3.0])
    vec[0:5:3] = vec[0]
    vec[2] = vec[4]
    for some in (vec, vec[[1, 0, 4, 3, 2, 5]]):
        assert torch.equal(cuda_operators.torsion_neighbor(some, graph), ops.torsion_neighbor(some, graph))


@pytest.mark.parametrize("num_in, num_out", [(1023, 1), (1024, 2), (1025, 1), (1200, 2)])
def test_cuda_of_very_many_neighbors(cuda_operators, num_in, num_out):
    """As many as the azimuths kept in shared memory, and more."""
    edges = [(k + 1, 0) for k in range(num_in)] + [(0, k + 1) for k in range(num_out)]
    graph = build_graph(torch.tensor(edges).T, num_in + 1)
    vec = torch.randn(len(edges), 3, dtype=torch.float64)
    assert torch.equal(cuda_operators.torsion_neighbor(vec, graph), ops.torsion_neighbor(vec, graph))


@pytest.mark.parametrize("num_neighbors", [17, 33, 100])
def test_cuda_of_more_pairs_than_fit_at_once(cuda_operators, num_neighbors):
    pos = torch.cat([torch.zeros(1, 3).double(), torch.randn(num_neighbors, 3, dtype=torch.float64)])
    graph = radius_graph(pos, None, 10.0)
    keep = (graph.edge_index == 0).any(0)
    graph = build_graph(graph.edge_index[:, keep], len(pos))
    vec = edge_vectors(pos, graph)
    assert torch.equal(cuda_operators.torsion_neighbor(vec, graph), ops.torsion_neighbor(vec, graph))


@pytest.mark.parametrize("name", ["batch", "isolated last", "no edges"])
def test_cuda_padding_is_not_read(cuda_operators, name):
    vec, graph = GRAPHS[name]
    longer, larger = padded(vec, graph, 7)
    assert torch.equal(cuda_operators.torsion_neighbor(longer, larger), reference.torsion_neighbor(vec, graph))
