"""The readable operators against brute force and their definitions."""

import math

import numpy as np
import pytest
import scipy.special
import torch
from molecules import MOLECULES, complete_graph, rattled, rotation
from operator_cases import paper_torsions

from spherenet_fast.graph import edge_vectors, radius_graph
from spherenet_fast.ops import reference

# random gradcheck inputs lie far from every kink; finite differences of 1e-6 leave 1e-5 of a value of order 1 to 10
GRADCHECK = dict(atol=1e-5, rtol=1e-4)


def pairs_of(graph):
    """(number, q, e) of every pair of the tiles, by the definition."""
    for j in range(len(graph.in_ptr) - 1):
        edges_in = range(graph.in_ptr[j], graph.in_ptr[j + 1])
        edges_out = graph.out_edge[graph.out_ptr[j] : graph.out_ptr[j + 1]].tolist()
        for q_local, q in enumerate(edges_in):
            for e_local, e in enumerate(edges_out):
                yield int(graph.triplet_ptr[j]) + q_local * len(edges_out) + e_local, q, e


# ---------------------------------------------------------------------------------------------------- torsions


def brute_force_reference(vec, graph):
    """The torsion rule by the words of its definition, one pair at a time."""
    vec = vec.double().numpy()
    direction = vec / np.linalg.norm(vec, axis=1, keepdims=True)
    found = np.full(graph.num_triplets, -9)
    for pair, q, e in pairs_of(graph):
        a = direction[e]

        def across(edge):
            return -direction[edge] + (direction[edge] @ a) * a

        if q == graph.rev[e] or np.linalg.norm(across(q)) < 1e-5:
            found[pair] = -2
            continue
        j = int(graph.edge_index[0, e])
        angles = {}
        for k in range(graph.in_ptr[j], graph.in_ptr[j + 1]):
            if k not in (q, int(graph.rev[e])) and np.linalg.norm(across(k)) >= 1e-5:
                angle = math.atan2(a @ np.cross(across(q), across(k)), across(q) @ across(k)) % (2 * math.pi)
                angles[k] = angle + 2 * math.pi if angle < 1e-4 else angle
        tied = [k for k in angles if angles[k] - min(angles.values()) < 1e-4]
        found[pair] = min(tied) - int(graph.in_ptr[j]) if tied else -1
    assert (found != -9).all()
    return torch.from_numpy(found).int()


@pytest.mark.parametrize("name", MOLECULES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_torsion_rule(name, dtype):
    graph = complete_graph(len(MOLECULES[name]))
    for seed in range(3):
        vec = edge_vectors((MOLECULES[name] @ rotation(seed)).to(dtype), graph)
        found = paper_torsions(reference, vec, graph)
        assert found.dtype == torch.int32
        assert torch.equal(found, brute_force_reference(vec, graph))


def test_torsion_rule_does_not_depend_on_orientation_or_precision():
    for pos in MOLECULES.values():
        graph = complete_graph(len(pos))
        expected = paper_torsions(reference, edge_vectors(pos, graph), graph)
        for seed in range(3):
            for dtype in (torch.float64, torch.float32):
                vec = edge_vectors((pos @ rotation(seed)).to(dtype), graph)
                assert torch.equal(paper_torsions(reference, vec, graph), expected)


@pytest.mark.parametrize("seed", range(3))
def test_torsions_around_an_edge_add_up_to_a_turn(seed):
    pos = rattled(8, seed)
    graph = complete_graph(8)
    vec = edge_vectors(pos, graph)
    direction = vec / vec.norm(dim=1, keepdim=True)
    chosen = paper_torsions(reference, vec, graph)
    z, re, im = reference.triplet_geometry(direction, chosen, graph)
    total = torch.zeros(len(vec), dtype=torch.float64)
    for pair, q, e in pairs_of(graph):
        assert (chosen[pair] == -2) == (q == graph.rev[e])
        if chosen[pair] != -2:
            total[e] += math.atan2(im[pair], re[pair]) % (2 * math.pi)
            # z and re + i im are a point of the unit sphere, to rounding
            assert abs(z[pair] ** 2 + re[pair] ** 2 + im[pair] ** 2 - 1) < 1e-14
    # eight rounded angles
    torch.testing.assert_close(total, torch.full_like(total, 2 * math.pi), rtol=0, atol=1e-13)


def test_ties_and_lines_by_hand():
    # Atom 1 is the center; e = 1->0 points along -x, the others lie at azimuths 0, 0, pi/2 about e, one on its line.
    pos = torch.tensor([[-1.0, 0, 0], [0, 0, 0], [0, 1, 0], [0.5, 2, 0], [0, 0, -1.5], [2, 0, 0]], dtype=torch.float64)
    graph = complete_graph(6)
    chosen = paper_torsions(reference, edge_vectors(pos, graph), graph)
    e = ((graph.edge_index[0] == 1) & (graph.edge_index[1] == 0)).nonzero().item()
    numbers = {}  # sender of q -> sender of its reference
    for pair, q, out in pairs_of(graph):
        if out == e:
            sender = graph.edge_index[0, graph.in_ptr[1] : graph.in_ptr[2]]
            numbers[int(graph.edge_index[0, q])] = int(sender[chosen[pair]]) if chosen[pair] >= 0 else int(chosen[pair])
    # turning about -x by the right-hand rule, from +y one comes to -z; 2 and 3 share an azimuth: for each of them 4 is
    # nearer than the other, which counts as a full turn; for 4 both are tied and the smaller edge number wins; 0 is the
    # edge itself and 5 lies on its line
    assert numbers == {0: -2, 2: 4, 3: 4, 4: 2, 5: -2}


def test_without_a_candidate_the_torsion_is_a_full_turn():
    graph = complete_graph(3)
    vec = edge_vectors(MOLECULES["bent"], graph)
    chosen = paper_torsions(reference, vec, graph)
    z, re, im = reference.triplet_geometry(vec / vec.norm(dim=1, keepdim=True), chosen, graph)
    assert sorted(set(chosen.tolist())) == [-2, -1]
    alone = chosen == -1
    # s e^(2 pi i) = s
    torch.testing.assert_close(re[alone], (1 - z[alone] ** 2).sqrt(), rtol=1e-12, atol=1e-14)
    assert (im == 0).all() and (re[~alone] == 0).all()


# --------------------------------------------------------------------------------------------------- gated sum


def gated_inputs(pos, graph, num_spherical=3, num_radial=2, channels=3, rank=2, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)

    vec = edge_vectors(pos, graph)
    direction = (vec / vec.norm(dim=1, keepdim=True)).requires_grad_()
    num_edges = len(vec)
    return (
        [normal(num_edges, channels), normal(num_edges, num_spherical, num_radial), direction],
        paper_torsions(reference, vec, graph),
        [
            normal(rank, num_spherical * num_radial), normal(channels, rank),
            normal(rank + 1, num_spherical**2 * num_radial), normal(channels, rank + 1),
        ],
    )  # fmt: skip


def brute_force_gated_sum(x, radial, direction, chosen, graph, weights, name, torsions):
    """The sum over triplets with angles from acos and atan2 and SciPy's harmonics."""
    x, radial, direction, *weights = (value.detach().numpy() for value in (x, radial, direction, *weights))
    angle_weight, angle_expand, torsion_weight, torsion_expand = weights
    num_spherical, num_radial = radial.shape[1:]
    total = np.zeros_like(x)
    for pair, q, e in pairs_of(graph):
        if q == graph.rev[e]:
            continue
        theta = math.acos(-direction[q] @ direction[e])
        phi = 2 * math.pi
        if chosen[pair] >= 0:
            plane = np.cross(direction[e], -direction[q])
            k = int(graph.in_ptr[graph.edge_index[0, e]]) + int(chosen[pair])
            next_plane = np.cross(direction[e], -direction[k])
            phi = math.atan2(direction[e] @ np.cross(plane, next_plane), plane @ next_plane)
        a, t = np.zeros(len(angle_weight)), np.zeros(len(torsion_weight))
        for degree in range(num_spherical):
            for m in range(-degree, degree + 1):
                h = degree**2 + (m if m >= 0 else 2 * degree + 1 + m)
                value = scipy.special.sph_harm_y(degree, abs(m), theta, phi)
                value = value.real if m == 0 else math.sqrt(2) * (value.real if m > 0 else value.imag)
                for n in range(num_radial):
                    order = degree if name == "paper" else h % num_spherical
                    t += torsion_weight[:, h * num_radial + n] * radial[q, order, n] * value
                    if m == 0:
                        a += angle_weight[:, degree * num_radial + n] * radial[q, degree, n] * value
        total[e] += x[q] * (angle_expand @ a) * (torsion_expand @ t if torsions else 1)
    return total


@pytest.mark.parametrize("name", ["paper", "dig"])
@pytest.mark.parametrize("torsions", [True, False])
def test_gated_sum(name, torsions):
    pos = rattled(5, 3)
    graph = radius_graph(pos, torch.zeros(5, dtype=torch.int64), 3.0)
    (x, radial, direction), chosen, weights = gated_inputs(pos, graph)
    used = weights if torsions else [*weights[:2], None, None]
    found = reference.gated_sum(x, radial, direction, chosen if torsions else None, graph, *used, name)
    expected = brute_force_gated_sum(x, radial, direction, chosen, graph, weights, name, torsions)
    # acos and atan2 in the brute force, sums of some hundred terms of order 1 to 10
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-10, atol=1e-11)


def test_gated_sum_without_weights_and_with_torsion_only():
    pos = rattled(5, 3)
    graph = complete_graph(5)
    (x, radial, direction), chosen, weights = gated_inputs(pos, graph)
    total = torch.zeros_like(x)
    for _, q, e in pairs_of(graph):
        if q != graph.rev[e]:
            total[e] += x[q]
    plain = reference.gated_sum(x, None, None, None, graph, None, None, None, None)
    torch.testing.assert_close(plain, total, rtol=1e-14, atol=1e-14)  # the same additions
    both = reference.gated_sum(x, radial, direction, chosen, graph, *weights)
    ones = torch.zeros(1, 6, dtype=torch.float64), torch.zeros(3, 1, dtype=torch.float64)
    assert not torch.allclose(both, reference.gated_sum(x, radial, direction, chosen, graph, None, None, *weights[2:]))
    assert (reference.gated_sum(x, radial, direction, chosen, graph, *ones, *weights[2:]) == 0).all()


@pytest.mark.parametrize("name", ["paper", "dig"])
def test_derivatives_of_gated_sum(name):
    pos = rattled(4, 1)
    graph = complete_graph(4)
    tensors, chosen, weights = gated_inputs(pos, graph, channels=2, rank=1)

    def function(x, radial, direction, *weights):
        return reference.gated_sum(x, radial, direction, chosen, graph, *weights, name)

    assert torch.autograd.gradcheck(function, (*tensors, *weights), **GRADCHECK)
    assert torch.autograd.gradgradcheck(function, (*tensors, *weights), **GRADCHECK)


@pytest.mark.parametrize("molecule", MOLECULES)
def test_derivatives_are_numbers_everywhere(molecule):
    """Lines, planes and symmetric arrangements have no NaN in first or second derivatives."""
    pos = MOLECULES[molecule]
    graph = complete_graph(len(pos))
    tensors, chosen, weights = gated_inputs(pos, graph)
    inputs = [*tensors, *weights]
    loss = reference.gated_sum(*tensors, chosen, graph, *weights).square().sum()
    first = torch.autograd.grad(loss, inputs, create_graph=True)
    second = torch.autograd.grad(sum(gradient.square().sum() for gradient in first), inputs)
    assert all(gradient.isfinite().all() for gradient in (*first, *second))
