"""The torsion rule in the kernel: whom the torsion of each triplet is measured to."""

import math

import pytest
import torch
from molecules import EXACT, around_one_edge, complete_graph, rattled, rotation
from operator_cases import GRAPHS, crowd, strided

from spherenet_fast import ops
from spherenet_fast.graph import edge_vectors, radius_graph
from spherenet_fast.ops import reference

NO_REFERENCE, VANISHING = -1, -2
DTYPES = [torch.float64, torch.float32]


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
    found = ops.torsion_reference(vec, graph)
    assert found.dtype == torch.int32 and found.shape == (graph.num_triplets,)
    assert torch.equal(found, reference.torsion_reference(vec, graph))


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_specification_in_a_crowd(seed):
    pos = rattled(20, seed, 2.0)
    graph = radius_graph(pos, None, 5.0)
    vec = edge_vectors(pos, graph)
    assert torch.equal(ops.torsion_reference(vec, graph), reference.torsion_reference(vec, graph))


@pytest.mark.parametrize("name", EXACT)
def test_does_not_depend_on_orientation_or_precision(name):
    _, pos = EXACT[name]
    graph = complete_graph(len(pos))
    expected = reference.torsion_reference(edge_vectors(pos, graph), graph)
    for seed in range(20):
        for dtype in DTYPES:
            vec = edge_vectors((pos @ rotation(seed) + 3).to(dtype), graph)
            assert torch.equal(ops.torsion_reference(vec, graph), expected)


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
    assert torch.equal(ops.torsion_reference(vec, graph).long(), expected)


def test_ties_are_broken_by_the_edge_number():
    vec, graph = around_one_edge([0.0, 1.0, 1.0, 1.0 - 5e-5, 4.0])
    # 0: those near 1.0 are tied and 1 is the lowest; 1, 2, 3: each other a full turn away, 4 is next; 4: 0
    assert ops.torsion_reference(vec, graph).tolist() == [1, 4, 4, 4, 0]
    assert ops.torsion_reference(vec.float(), graph).tolist() == [1, 4, 4, 4, 0]


def test_collinear_neighbors():
    # 0.99e-5 and 1.01e-5 lie on either side of the margin
    vec, graph = around_one_edge([0.0, 1.0, 2.0, 3.0, 4.0], across=[1.0, 0.99e-5, 1.0, 1.01e-5, 0.0])
    assert ops.torsion_reference(vec, graph).tolist() == [2, VANISHING, 3, 0, VANISHING]


def test_alone_is_a_full_turn():
    vec, graph = around_one_edge([1.0])
    assert ops.torsion_reference(vec, graph).tolist() == [NO_REFERENCE]


@pytest.mark.parametrize("name", ["batch", "periodic", "not symmetric", "star"])
def test_never_itself_nor_the_reverse_edge(name):
    vec, graph = GRAPHS[name]
    found = ops.torsion_reference(vec, graph).long()
    q, e, j = pairs(graph)
    neighbor = torch.where(found >= 0, graph.in_ptr[j] + found, -7)
    assert (neighbor != q).all() and (neighbor != graph.rev[e]).all()
    assert (found[q == graph.rev[e]] == VANISHING).all()
    assert (neighbor < graph.in_ptr[j + 1]).all()


def test_torsions_around_an_edge_add_up_to_a_turn():
    vec, graph = crowd()
    direction = vec / vec.norm(dim=1, keepdim=True)
    found = ops.torsion_reference(vec, graph)
    _, re, im = reference.triplet_geometry(direction, found, graph)
    q, e, _ = pairs(graph)
    measured = found != VANISHING
    torsion = torch.remainder(torch.atan2(im, re), 2 * math.pi)[measured]
    total = torch.zeros(len(vec)).double().index_add(0, e[measured], torsion)
    # twenty rounded angles
    torch.testing.assert_close(total, torch.full_like(total, 2 * math.pi), rtol=0, atol=1e-11)


def test_strided_vectors():
    vec, graph = GRAPHS["batch"]
    assert torch.equal(ops.torsion_reference(strided(vec), graph), ops.torsion_reference(vec, graph))


def test_has_no_derivative():
    vec, graph = GRAPHS["batch"]
    assert not ops.torsion_reference(vec.clone().requires_grad_(), graph).requires_grad
