"""The fused gated sum and both its derivatives against the readable one."""

import itertools

import pytest
import torch
from gated_sum_cases import FLOAT64, GATES, SHAPES, TOLERANCES, compare
from operator_cases import (
    assert_close,
    cast,
    derivatives,
    gated_function,
    gated_inputs,
    paper_torsions,
    receiver_inputs,
    strided,
)
from operator_graphs import GRAPHS, crowd, small_graph

from spherenet_fast import ops
from spherenet_fast.graph import edge_vectors, radius_graph
from spherenet_fast.ops import reference


@pytest.mark.parametrize("dtype, tolerance", TOLERANCES)
@pytest.mark.parametrize("basis", ["paper", "dig"])
@pytest.mark.parametrize("gates", GATES, ids=["torsion", "angle", "plain"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape.values())))
def test_every_size(shape, gates, basis, dtype, tolerance):
    vec, graph = GRAPHS["batch"]
    compare(ops, vec, graph, gated_inputs(vec, **shape, **gates), basis, dtype, tolerance)


@pytest.mark.parametrize("dtype, tolerance", TOLERANCES)
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[4]], ids=["default", "odd"])
@pytest.mark.parametrize("name", GRAPHS)
def test_every_graph(name, shape, dtype, tolerance, instruction_set):
    vec, graph = GRAPHS[name]
    compare(ops, vec, graph, gated_inputs(vec, **shape), "paper", dtype, tolerance)


@pytest.mark.parametrize("name", ["star", "line", "periodic", "not symmetric", "no edges"])
@pytest.mark.parametrize("gates", GATES[1:], ids=["angle", "plain"])
def test_every_graph_with_fewer_gates(name, gates):
    vec, graph = GRAPHS[name]
    for dtype, tolerance in TOLERANCES:
        compare(ops, vec, graph, gated_inputs(vec, **SHAPES[4], **gates), "paper", dtype, tolerance)


@pytest.mark.parametrize("dtype, tolerance", TOLERANCES)
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[4]], ids=["default", "odd"])
@pytest.mark.parametrize("name", sorted(GRAPHS.keys() - {"line"}))  # on a line the derivatives by positions are 0
def test_angles_at_the_receiver(name, shape, dtype, tolerance, instruction_set):
    vec, graph = GRAPHS[name]
    compare(ops, vec, graph, receiver_inputs(vec, **shape), "paper", dtype, tolerance, "receiver")


def test_the_receiver_angle_is_that_of_the_triangle():
    """Y_10 = sqrt(3 / 4 pi) cos(theta), with the angle from the triangle's three sides."""
    pos = torch.tensor([[0.0, 0, 0], [1.1, 0.2, 0], [-0.3, 1.4, 0.5]], dtype=torch.float64)
    graph = radius_graph(pos, None, 5.0)
    k, j, i = 2, 1, 0
    sender, receiver = graph.edge_index.tolist()
    (q,) = [n for n in range(6) if (sender[n], receiver[n]) == (k, j)]
    (e,) = [n for n in range(6) if (sender[n], receiver[n]) == (j, i)]
    radial = torch.zeros(6, 2, 1, dtype=torch.float64)
    radial[q, 1] = 1
    ones, weight = torch.ones(6, 1, dtype=torch.float64), torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    vec = edge_vectors(pos, graph)
    message = ops.gated_sum(
        ones, radial, vec, None, graph, weight, ones[:1], None, None, angle_at="receiver"
    )  # fmt: skip
    (ij, ik, jk) = ((pos[a] - pos[b]).norm() for a, b in ((i, j), (i, k), (j, k)))
    cosine = (ij**2 + ik**2 - jk**2) / (2 * ij * ik)
    # a handful of roundings of float64
    torch.testing.assert_close(message[e, 0], (3 / (4 * torch.pi)) ** 0.5 * cosine, rtol=1e-13, atol=0)


@pytest.mark.parametrize("dtype, tolerance", TOLERANCES)
def test_several_chunks_of_work(dtype, tolerance):
    vec, graph = crowd()
    compare(ops, vec, graph, gated_inputs(vec, **SHAPES[4]), "paper", dtype, tolerance)


def test_the_instruction_sets_are_chosen(monkeypatch):
    """All agree with the reference above; that they are not one and the same shows in the last bits."""
    vec, graph = GRAPHS["batch"]
    function = gated_function(ops, vec, graph)
    inputs = cast(gated_inputs(vec, **SHAPES[0]), torch.float32).values()
    found = {}
    for name in ("baseline", "avx2"):
        monkeypatch.setenv("SPHERENET_FAST_CPU", name)
        found[name] = function(*inputs)
    # avx2 comes with fused multiply-adds, which round once where the baseline rounds twice
    has_avx2 = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    assert torch.equal(found["baseline"], found["avx2"]) == (not has_avx2)


def test_strided_inputs():
    vec, graph = GRAPHS["batch"]
    function = gated_function(ops, vec, graph)
    inputs = gated_inputs(vec, **SHAPES[4])
    gaps = {name: strided(value) for name, value in inputs.items()}
    assert not any(value.is_contiguous() for value in gaps.values())
    expected, found = derivatives(function, inputs), derivatives(function, gaps)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_strided_cotangents():
    vec, graph = GRAPHS["batch"]
    inputs = [value.requires_grad_() for value in gated_inputs(vec, **SHAPES[4]).values()]
    value = gated_function(ops, vec, graph)(*inputs)
    cotangent = torch.randn_like(value)
    found = []
    for change in (torch.clone, strided):
        first = torch.autograd.grad(value, inputs, change(cotangent), create_graph=True)
        second = torch.autograd.grad(first, inputs, [change(gradient.detach()) for gradient in first])
        found.append([*first, *second])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("gates", GATES, ids=["torsion", "angle", "plain"])
def test_derivatives_by_some_inputs_alone(gates):
    """The kernels skip the gradients that nobody asks for, of the inputs that need none and of those that do."""
    vec, graph = small_graph()
    inputs = gated_inputs(vec, **SHAPES[4], **gates)
    names = [name for name, value in inputs.items() if value is not None]
    cotangent = torch.randn_like(inputs["x"])

    def both_derivatives(operators, first_by, second_by, required):
        """By the inputs first_by, and of the sum of their squares by second_by, where `required` require gradients."""
        leaves = {name: inputs[name].clone().requires_grad_(name in required) for name in names}
        targets, others = [leaves[name] for name in first_by], [leaves[name] for name in second_by]
        value = gated_function(operators, vec, graph)(*[leaves.get(name) for name in inputs])
        first = torch.autograd.grad(value, targets, cotangent, create_graph=True)
        loss = sum(gradient.square().sum() for gradient in first) + 0 * value.sum()  # linear in x: no other graph
        second = torch.autograd.grad(loss, others, allow_unused=True, materialize_grads=True)
        return dict(zip(first_by, first, strict=True)), dict(zip(second_by, second, strict=True))

    subsets = [*itertools.combinations(names, 1), *itertools.combinations(names, 2)]
    for first_by in subsets:
        first, second = both_derivatives(reference, first_by, names, names)
        for second_by in subsets:
            for required in ({*first_by, *second_by}, names):
                found = both_derivatives(ops, first_by, second_by, required)
                assert_close(found[0], first, FLOAT64)
                assert_close(found[1], {name: second[name] for name in second_by}, FLOAT64)


def test_inputs_that_play_no_part():
    """Without weights the sum does not depend on radial and direction, given or not."""
    vec, graph = GRAPHS["batch"]
    x, *others = (value.requires_grad_() for value in gated_inputs(vec, **SHAPES[4]).values())
    function = gated_function(ops, vec, graph)

    def results(*given):
        value = function(x, *given, *[None] * 4)
        (first,) = torch.autograd.grad(value.square().sum(), x, create_graph=True)
        loss = first.square().sum()
        return [value, first, *torch.autograd.grad(loss, [x, *others[:2]], materialize_grads=True)]

    *found, by_radial, by_direction = results(*others[:2])
    *expected, _, _ = results(None, None)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)) and found[1].norm() > 0
    assert (by_radial == 0).all() and (by_direction == 0).all()


def test_a_torsion_without_its_weights_plays_no_part():
    vec, graph = GRAPHS["batch"]
    x, radial, direction, *weights = gated_inputs(vec, **SHAPES[4], use_torsion=False).values()
    direction.requires_grad_()
    point = torch.full((2, 1), torch.nan, dtype=torch.float64, requires_grad=True)  # not even as long as it should be

    def results(torsion):
        value = ops.gated_sum(x, radial, direction, torsion, graph, *weights)
        return [value, *torch.autograd.grad(value.sum(), [direction, point], materialize_grads=True)]

    expected = results(None)
    assert (expected[2] == 0).all()
    for torsion in (paper_torsions(reference, vec, graph), point):
        assert all(torch.equal(a, b) for a, b in zip(results(torsion), expected, strict=True))
