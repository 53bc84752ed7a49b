"""First and second derivatives against finite differences, in float64, for every operator and from the positions on."""

import math

import pytest
import torch
from molecules import complete_graph, rattled
from operator_cases import DIFFERENTIABLE, bessel_constants, case, gated_inputs, paper_torsions
from operator_graphs import small_graph

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


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_every_operator(name):
    chosen = case(name, *small_graph())
    run, given = chosen.function(ops), chosen.inputs
    present = [key for key, value in given.items() if value is not None]
    # squared where a linear function has no second derivative to compare
    power = 2 if chosen.derivatives > 2 else 1

    def function(*leaves):
        values = run(*(given | dict(zip(present, leaves, strict=True))).values())
        return tuple(value**power for value in values) if isinstance(values, tuple) else values**power

    check(function, [given[key] for key in present])


def test_radial_basis_beyond_the_cutoff():
    distance = torch.tensor([0.6, 4.7, 5.6], dtype=torch.float64)
    frequency = torch.tensor([3.0, 6.5], dtype=torch.float64)
    check(lambda *given: ops.radial_basis(*given, *bessel_constants(L, K), 5.0, 5), (distance, frequency))


def test_silu_far_from_0():
    check(ops.silu, [torch.tensor([-30.0, -2.0, 0.0, 40.0], dtype=torch.float64)])


def test_from_positions_to_atoms():
    """All operators in a row, as a model has them; a torsion depends on the neighbor that it is measured to, too."""
    pos = rattled(5, 1)
    graph = complete_graph(5)
    constants = bessel_constants(L, K)
    given = gated_inputs(edge_vectors(pos, graph), L, K, channels=3, angle_size=2, torsion_size=2)

    def function(pos, frequency, per_atom, *weights):
        vec = edge_vectors(pos, graph)
        distance = vec.norm(dim=1)
        bessel, radial = ops.radial_basis(distance, frequency, *constants, 6.0, 5)
        torsions = paper_torsions(ops, vec, graph)
        x = ops.gather(per_atom, graph.edge_index[0], graph.out_ptr, graph.out_edge) * bessel[:, :1]
        messages = ops.gated_sum(x, radial, vec / distance[:, None], torsions, graph, *weights)
        return ops.segment_sum(messages, graph.in_ptr)

    frequency = math.pi * torch.tensor([1.0, 2.0], dtype=torch.float64)
    weights = [given[name] for name in ("angle_weight", "angle_expand", "torsion_weight", "torsion_expand")]
    check(function, [pos, frequency, torch.randn(5, 3).double(), *weights])


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_third_derivatives(name):
    """They are refused, or else numbers."""
    chosen = case(name, *small_graph())
    x, *others = chosen.inputs.values()
    x = x.clone().requires_grad_()

    def third_derivative():
        value = chosen.function(ops)(x, *others)
        value = sum(part.pow(4).sum() for part in (value if isinstance(value, tuple) else (value,)))
        for _ in range(2):
            (slope,) = torch.autograd.grad(value, x, create_graph=True)
            value = slope.square().sum()
        return torch.autograd.grad(value, x)[0]

    if chosen.derivatives > 2:
        assert third_derivative().isfinite().all()
    else:
        with pytest.raises(RuntimeError, match="third derivatives do not exist"):
            third_derivative()
