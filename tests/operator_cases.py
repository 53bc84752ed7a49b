"""The table of the operators' cases, and the derivatives that are compared. The graphs are in operator_graphs.py.

Importing it takes no package that is optional.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import pytest
import torch
from operator_graphs import on_device, small_graph

from spherenet_fast import ops
from spherenet_fast.nn import basis
from spherenet_fast.ops import reference


def bessel_constants(num_spherical, num_radial):
    """roots, scale [L, K] float64."""
    roots = basis.spherical_bessel_roots(num_spherical, num_radial)
    return torch.tensor(roots), torch.tensor(basis.spherical_bessel_scale(roots))


def gated_inputs(
    vec,
    num_spherical=3,
    num_radial=2,
    channels=5,
    angle_size=2,
    torsion_size=3,
    use_angle=True,
    use_torsion=True,
    seed=0,
):
    """The differentiable inputs of gated_sum by name, float64, None for those that are left out.

    The weights are scaled as a model's are, so that the result is of order 1.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def weight(rows, columns):
        return normal(rows, columns) / columns**0.5

    inputs = {
        "x": normal(len(vec), channels),
        "radial": normal(len(vec), num_spherical, num_radial),
        "direction": vec / vec.norm(dim=1, keepdim=True),
        "angle_weight": weight(angle_size, num_spherical * num_radial),
        "angle_expand": weight(channels, angle_size),
        "torsion_weight": weight(torsion_size, num_spherical**2 * num_radial),
        "torsion_expand": weight(channels, torsion_size),
    }
    if not use_torsion:
        inputs |= dict(torsion_weight=None, torsion_expand=None)
    if not use_angle:
        inputs |= dict(radial=None, direction=None, angle_weight=None, angle_expand=None)
    return inputs


def receiver_inputs(vec, **sizes):
    """The same for angles at the receiver: no torsion, and the vectors themselves in place of directions."""
    return gated_inputs(vec, **sizes, use_torsion=False) | {"direction": vec}


def paper_torsions(operators, vec, graph):
    """What gated_sum takes for the paper's torsions, [num_triplets] int32, of the module `operators`."""
    return operators.torsion_neighbor(vec, graph)


def gated_function(operators, vec, graph, basis_name="paper", angle_at="sender"):
    """gated_sum of the module `operators` as a function of its differentiable inputs, in the order of gated_inputs."""
    torsions = paper_torsions(reference, vec, graph).to(graph.rev.device)

    def function(x, radial, direction, *weights):
        chosen = None if weights[2] is None else torsions
        return operators.gated_sum(x, radial, direction, chosen, graph, *weights, basis_name, angle_at)

    return function


# ---- the table -------------------------------------------------------------------------------------------------------

Inputs = dict[str, torch.Tensor | None]  # by name, float64


class Case(NamedTuple):
    """One way to call an operator."""

    inputs: Inputs  # those that it is differentiable in
    function: Callable  # the module of operators -> a function of the inputs' values
    derivatives: int = 2  # how many there are: 0, 2 (the third raises) or 9, any number
    names: Mapping[str, str] = {}  # of inputs in messages, as patterns, where these are others


def _normal(**shapes):
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def _directions(vec):
    fade = torch.rand(len(vec), generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return {"direction": vec / vec.norm(dim=1, keepdim=True), "fade": fade}


def _gated(vec, graph, sizes, torsion=None, basis_name="paper", angle_at="sender", **left_out):
    given = gated_inputs(vec, *sizes.values(), **left_out)
    if angle_at == "receiver":
        given["direction"] = vec
    if torsion == "smooth":
        point = torch.rand(2, graph.num_triplets, generator=torch.Generator().manual_seed(5), dtype=torch.float64) - 0.5
        given["torsion"] = point
    fixed = paper_torsions(reference, vec, graph) if torsion == "paper" else None

    def function(operators):
        def run(x, radial, direction, aw, au, tw, tu, point=None):
            chosen = point if fixed is None else fixed.to(x.device)
            room = on_device(graph, x.device)
            return operators.gated_sum(x, radial, direction, chosen, room, aw, au, tw, tu, basis_name, angle_at)

        return run

    return Case(given, function)


def _radial_basis(vec, graph, sizes):
    roots, scale = bessel_constants(sizes["num_spherical"], sizes["num_radial"])
    number = torch.arange(1, sizes["num_radial"] + 1).double()
    given = {"distance": vec.norm(dim=1), "frequency": torch.pi * number + 0.1}

    def function(operators):
        return lambda distance, frequency: operators.radial_basis(
            distance, frequency, roots.to(distance.device), scale.to(distance.device), 5.0, 5
        )

    return Case(given, function)


def _on_graph(name, graph, *options):
    """A function of the module of operators: its operator `name` with the graph after the inputs."""

    def function(operators):
        return lambda *given: getattr(operators, name)(*given, on_device(graph, given[0].device), *options)

    return function


def _indexed(name, *indices):
    """The same with index arrays, or None, after the inputs."""

    def function(operators):
        def run(x):
            return getattr(operators, name)(x, *(i if i is None else i.to(x.device) for i in indices))

        return run

    return function


def _neighbors(name, *arguments):
    """A search among atoms on a line, two in each molecule, with batch before the other arguments."""
    pos, batch = torch.arange(12.0, dtype=torch.float64).reshape(4, 3) / 3, torch.tensor([0, 0, 1, 1])

    def function(operators):
        def run(pos):
            given = [a.to(pos.device) if isinstance(a, torch.Tensor) else a for a in (batch, *arguments)]
            return getattr(operators, name)(pos, *given)

        return run

    return Case({"pos": pos}, function, 0)


def _linear(vec, sizes):
    C = sizes["channels"]
    return _normal(x=(len(vec), C), weight=(C + 1, C), bias=(C + 1,))


def _row_chain(vec, sizes):
    C, K = sizes["channels"], sizes["num_radial"]
    given = _normal(x=(len(vec), C), y=(len(vec), C), bessel=(len(vec), K), weight=(C, C), bias=(C,), radial=(C, K))

    def function(operators):
        def run(x, y, bessel, weight, bias, radial):
            def chain(x, y, bessel):
                h = operators.linear_silu(x, weight, bias) + y
                return h, operators.radial_filter(h, bessel, radial)

            return operators.row_chain(chain, x, y, bessel)

        return run

    places = dict(x="rows", y="rows", bessel="rows", weight="weights", bias="biases", radial="weights")
    numbers = dict(x=0, y=1, bessel=2, weight=0, bias=0, radial=1)
    return Case(given, function, names={name: rf"{places[name]}\[{number}\]" for name, number in numbers.items()})


# name of the operator, and what is special -> Case of vec [E, 3], graph and sizes, as of `gated_inputs`
_TABLE = {
    "radial_basis": _radial_basis,
    "torsion_neighbor": lambda vec, graph, s: Case({"vec": vec}, _on_graph("torsion_neighbor", graph), 0),
    "smooth_torsion": lambda vec, graph, s: Case(_directions(vec), _on_graph("smooth_torsion", graph)),
    "smooth_torsion, even": lambda vec, graph, s: Case(_directions(vec), _on_graph("smooth_torsion", graph, True)),
    "gated_sum": lambda *given: _gated(*given, "paper"),
    "gated_sum, smooth torsion": lambda *given: _gated(*given, "smooth"),
    "gated_sum, other basis": lambda *given: _gated(*given, "paper", "dig"),
    "gated_sum, angle": lambda *given: _gated(*given, use_torsion=False),
    "gated_sum, angle at the receiver": lambda *given: _gated(*given, angle_at="receiver", use_torsion=False),
    "gated_sum, no weights": lambda *given: _gated(*given, use_angle=False, use_torsion=False),
    "segment_sum": lambda vec, graph, s: Case(
        _normal(x=(len(vec), s["channels"])), _indexed("segment_sum", graph.in_ptr), 9
    ),
    "segment_sum, permuted": lambda vec, graph, s: Case(
        _normal(x=(len(vec), s["channels"])), _indexed("segment_sum", graph.out_ptr, graph.out_edge), 9
    ),
    "segment_sum, transposed": lambda vec, graph, s: Case(
        _normal(x=(len(vec), s["channels"])),
        _indexed("segment_sum", graph.out_ptr, graph.out_edge, graph.edge_index[0]),
        9,
    ),
    "gather": lambda vec, graph, s: Case(
        _normal(x=(len(graph.in_ptr) - 1, s["channels"])), _indexed("gather", graph.edge_index[1], graph.in_ptr), 9
    ),
    "gather, permuted": lambda vec, graph, s: Case(
        _normal(x=(len(graph.in_ptr) - 1, s["channels"])),
        _indexed("gather", graph.edge_index[0], graph.out_ptr, graph.out_edge),
        9,
    ),
    "radial_filter": lambda vec, graph, s: Case(
        _normal(
            x=(len(vec), s["channels"]), bessel=(len(vec), s["num_radial"]), weight=(s["channels"], s["num_radial"])
        ),
        lambda operators: operators.radial_filter,
    ),
    "silu": lambda vec, graph, s: Case(_normal(x=(len(vec), s["channels"])), lambda operators: operators.silu),
    "linear": lambda vec, graph, s: Case(_linear(vec, s), lambda operators: operators.linear, 9),
    "linear_silu": lambda vec, graph, s: Case(_linear(vec, s), lambda operators: operators.linear_silu),
    "row_chain": lambda vec, graph, s: _row_chain(vec, s),
    "product": lambda vec, graph, s: Case(_linear(vec, s), lambda operators: ops.product.product, 9),
    "outer_sum": lambda vec, graph, s: Case(
        _normal(a=(len(vec), s["channels"]), b=(len(vec), s["num_radial"])), lambda operators: operators.outer_sum, 9
    ),
    "neighbor_pointers": lambda vec, graph, s: _neighbors("neighbor_pointers", 3.0, 8, 10),
    "neighbor_edges": lambda vec, graph, s: _neighbors("neighbor_edges", torch.arange(5), 3.0, 6),
}
CASES = tuple(_TABLE)
SMALL_SIZES = dict(num_spherical=3, num_radial=2, channels=3, angle_size=2, torsion_size=2)
MODEL_SIZES = dict(num_spherical=7, num_radial=6, channels=64, angle_size=8, torsion_size=8)


def operator_of(name: str) -> str:
    """The operator that the entry `name` of the table calls."""
    return name.split(",")[0]


def case(name: str, vec: torch.Tensor, graph, sizes: Mapping[str, int] = SMALL_SIZES) -> Case:
    """The entry `name` of the table on one graph."""
    return _TABLE[name](vec, graph, sizes)


DIFFERENTIABLE = tuple(name for name in CASES if case(name, *small_graph()).derivatives)


def cast(inputs, dtype, device="cpu"):
    """Inputs by name in another dtype, on a device; float64 copies of float32 numbers are equal to them."""
    return {name: None if value is None else value.to(device, dtype) for name, value in inputs.items()}


def strided(tensor):
    """The same numbers with a gap after each."""
    wide = tensor.new_zeros(*tensor.shape[:-1], 2 * tensor.shape[-1])
    wide[..., ::2] = tensor
    return wide[..., ::2]


def derivatives(function, inputs, seed=1):
    """What function(*inputs) returns, with its derivative along random cotangents and the derivative of that.

    inputs: dict of tensors or None. Returns a dict of detached tensors: "value 0", "grad x", "grad grad x", ..., and
    "grad grad value 0": the second derivative by the cotangent.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal_like(tensor):
        return torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)

    leaves = {name: None if value is None else value.detach().requires_grad_() for name, value in inputs.items()}
    values = function(*leaves.values())
    values = values if isinstance(values, tuple) else (values,)
    wanted = {name: leaf for name, leaf in leaves.items() if leaf is not None}
    cotangents = [normal_like(value).requires_grad_() for value in values]
    first = torch.autograd.grad(
        values, list(wanted.values()), cotangents, create_graph=True, allow_unused=True, materialize_grads=True
    )
    loss = sum((gradient * normal_like(gradient)).sum() for gradient in first)
    targets = wanted | {f"value {number}": cotangent for number, cotangent in enumerate(cotangents)}
    second = torch.autograd.grad(loss, list(targets.values()), allow_unused=True, materialize_grads=True)
    found = {f"value {number}": value for number, value in enumerate(values)}
    found |= {f"grad {name}": gradient for name, gradient in zip(wanted, first, strict=True)}
    found |= {f"grad grad {name}": gradient for name, gradient in zip(targets, second, strict=True)}
    return {name: tensor.detach() for name, tensor in found.items()}


def assert_close(found, expected, tolerance):
    """Every tensor of `found` within `tolerance` of its namesake, as norm of the difference over norm."""
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        tensor, exact = tensor.double().cpu(), expected[name].double().cpu()
        assert tensor.shape == exact.shape, name
        assert tensor.isfinite().all(), name
        error = (tensor - exact).norm()
        assert error <= tolerance * exact.norm(), f"{name}: {error / exact.norm():.1e}"


def other(tensor, position, value):
    """A copy with another number at one position."""
    copy = tensor.clone()
    copy[position] = value
    return copy


def raises(message, function, arguments, changes):
    """Checks the error of a function whose arguments, by name, are changed in some."""
    assert not changes.keys() - arguments.keys()
    with pytest.raises(RuntimeError, match=message):
        function(**arguments | changes)
