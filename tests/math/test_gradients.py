"""First and second derivatives against finite differences, in float64, for every operator and from the positions on."""

import math

import pytest
import torch
from molecules import complete_graph, rattled
from operator_cases import bessel_constants, gated_function, gated_inputs, receiver_inputs, small_graph

from spherenet_fast import ops
from spherenet_fast.graph import edge_vectors

L, K = 3, 2
# Finite differences of 1e-6 leave 1e-6^2 times a third derivative and 1e-16 / 1e-6 times the value, both below 1e-7 for
# numbers of order 1 to 100. Every component is compared: fast_mode would test one random combination.
OPTIONS = dict(eps=1e-6, atol=1e-6, rtol=1e-5, fast_mode=False)


def check(function, inputs):
    leaves = tuple(value.detach().requires_grad_() for value in inputs)
    assert torch.autograd.gradcheck(function, leaves, **OPTIONS)
    assert torch.autograd.gradgradcheck(function, leaves, **OPTIONS)


def test_radial_basis():
    distance = torch.tensor([0.6, 1.3, 2.9, 4.7, 5.6], dtype=torch.float64)  # the last one beyond the cutoff
    frequency = torch.tensor([3.0, 6.5], dtype=torch.float64)
    constants = bessel_constants(L, K)
    check(lambda *given: ops.radial_basis(*given, *constants, 5.0, 5), (distance, frequency))


@pytest.mark.parametrize("basis", ["paper", "released"])
@pytest.mark.parametrize("gates", [dict(), dict(use_torsion=False)], ids=["torsion", "angle"])
def test_gated_sum(gates, basis):
    vec, graph = small_graph()
    given = gated_inputs(vec, L, K, channels=3, angle_size=2, torsion_size=2, **gates)
    function, names = gated_function(ops, vec, graph, basis), [name for name in given if given[name] is not None]
    check(
        lambda *values: function(*(given | dict(zip(names, values, strict=True))).values()),
        [given[name] for name in names],
    )


def test_gated_sum_with_angles_at_the_receiver():
    vec, graph = small_graph()
    given = receiver_inputs(vec, num_spherical=L, num_radial=K, channels=3, angle_size=2)
    function = gated_function(ops, vec, graph, angle_at="receiver")
    check(lambda *values: function(*values, None, None), [value for value in given.values() if value is not None])


def test_gated_sum_without_weights():
    vec, graph = small_graph()
    function = gated_function(ops, vec, graph)
    check(lambda x: function(x, *[None] * 6), [gated_inputs(vec, channels=3)["x"]])


@pytest.mark.parametrize("index", [None, torch.tensor([3, 1, 0, 4, 2])])
def test_segment_sum_and_gather(index):
    ptr = torch.tensor([0, 2, 2, 5])
    check(lambda x: ops.segment_sum(x, ptr, index) ** 2, [torch.randn(5, 2).double()])
    segment = torch.tensor([0, 0, 2, 2, 2])
    row = segment if index is None else torch.empty(5, dtype=torch.int64).index_copy(0, index, segment)
    check(lambda x: ops.gather(x, row, ptr, index) ** 2, [torch.randn(3, 2).double()])


def test_silu():
    check(ops.silu, [torch.tensor([-30.0, -2.0, -0.3, 0.0, 0.4, 3.0, 40.0], dtype=torch.float64)])


def test_linear_silu():
    check(ops.linear_silu, [torch.randn(shape, dtype=torch.float64) for shape in ((4, 3), (5, 3), (5,))])


def test_outer_sum():
    check(
        lambda a, b: ops.outer_sum(a, b) ** 2, [torch.randn(shape, dtype=torch.float64) for shape in ((4, 3), (4, 5))]
    )


def test_radial_filter():
    shapes = (6, 5), (6, 3), (5, 3)
    check(lambda *given: ops.radial_filter(*given) ** 2, [torch.randn(shape, dtype=torch.float64) for shape in shapes])


def test_from_positions_to_atoms():
    """All operators in a row, as a model has them; a torsion depends on the position of its reference, too."""
    pos = rattled(5, 1)
    graph = complete_graph(5)
    constants = bessel_constants(L, K)
    given = gated_inputs(edge_vectors(pos, graph), L, K, channels=3, angle_size=2, torsion_size=2)

    def function(pos, frequency, per_atom, *weights):
        vec = edge_vectors(pos, graph)
        distance = vec.norm(dim=1)
        bessel, radial = ops.radial_basis(distance, frequency, *constants, 6.0, 5)
        reference = ops.torsion_reference(vec, graph)
        x = ops.gather(per_atom, graph.edge_index[0], graph.out_ptr, graph.out_edge) * bessel[:, :1]
        messages = ops.gated_sum(x, radial, vec / distance[:, None], reference, graph, *weights)
        return ops.segment_sum(messages, graph.in_ptr)

    frequency = math.pi * torch.tensor([1.0, 2.0], dtype=torch.float64)
    weights = [given[name] for name in ("angle_weight", "angle_up", "torsion_weight", "torsion_up")]
    check(function, [pos, frequency, torch.randn(5, 3).double(), *weights])


def third_derivative(function, x):
    value = function(x)
    for _ in range(2):
        (slope,) = torch.autograd.grad(value, x, create_graph=True)
        value = slope.square().sum()
    return torch.autograd.grad(value, x)


def test_third_derivatives_are_refused():
    vec, graph = small_graph()
    constants = bessel_constants(L, K)
    frequency = torch.ones(K).double()
    given = list(gated_inputs(vec, L, K).values())
    gated = gated_function(ops, vec, graph)
    weight = torch.randn(given[0].shape[1], given[0].shape[1]).double()
    functions = [
        lambda x: ops.radial_basis(x[:, 0].abs() + 1, frequency, *constants, 5.0, 5)[1].sum(),
        lambda x: gated(x, *given[1:]).square().sum(),
        lambda x: ops.silu(x).sum(),
        lambda x: ops.linear_silu(x, weight).sum(),
        lambda x: ops.radial_filter(x, x[:, :2].contiguous(), weight[:, :2].contiguous()).pow(2).sum(),
    ]
    for function in functions:
        with pytest.raises(RuntimeError, match="third derivative"):
            third_derivative(function, given[0].clone().requires_grad_())
