"""What memory may look like: gaps between numbers, odd addresses, garbage in fresh tensors, other precisions."""

import pytest
import torch
from operator_cases import (
    CASES,
    DIFFERENTIABLE,
    assert_close,
    case,
    cast,
    derivatives,
    gated_function,
    gated_inputs,
    paper_torsions,
    strided,
)
from operator_graphs import GRAPHS, crowd

from spherenet_fast import ops
from spherenet_fast.graph import build_graph
from spherenet_fast.ops import reference
from spherenet_fast.ops._register import graph_arrays

ODD = dict(num_spherical=3, num_radial=5, channels=7, angle_size=3, torsion_size=9)


def all_operators(vec, graph, dtype=torch.float64, change=lambda tensor: tensor):
    """All results and derivatives of all operators on one graph, of inputs that went through `change`."""
    found = {}
    for name in CASES:
        chosen = case(name, vec, graph, ODD)
        given = cast(chosen.inputs, dtype)
        given = {key: None if value is None else change(value) for key, value in given.items()}
        if chosen.derivatives:
            results = derivatives(chosen.function(ops), given)
        else:
            values = chosen.function(ops)(*given.values())
            results = dict(enumerate(values if isinstance(values, tuple) else (values,)))
        found |= {f"{name}: {key}": tensor for key, tensor in results.items()}
    return found


def assert_same_bits(found, expected):
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0, equal_nan=True, msg=name)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", GRAPHS)
def test_every_number_of_a_result_is_written(name, dtype, poisoned_memory):
    assert torch.empty(9).isnan().all()
    for result, tensor in all_operators(*GRAPHS[name], dtype).items():
        written = tensor.isfinite() if tensor.is_floating_point() else tensor < torch.iinfo(tensor.dtype).max
        assert written.all(), result


def at_odd_address(tensor):
    """A contiguous copy whose first number lies one number after an aligned address."""
    longer = tensor.new_zeros(tensor.numel() + 1)
    longer[1:] = tensor.flatten()
    return longer[1:].view_as(tensor)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("change", [at_odd_address, strided])
def test_layout_of_the_numbers(change, dtype):
    for name in ("batch", "one edge", "no edges"):
        expected = all_operators(*GRAPHS[name], dtype)
        assert_same_bits(all_operators(*GRAPHS[name], dtype, change), expected)


@pytest.mark.parametrize("change", [at_odd_address, strided])
def test_layout_of_the_indices(change):
    vec, graph = GRAPHS["batch"]
    names = ("edge_index", "in_ptr", "out_ptr", "out_edge", "rev", "triplet_ptr")
    arrays = {name: change(getattr(graph, name)) for name in names}
    assert_same_bits(all_operators(vec, graph._replace(**arrays)), all_operators(vec, graph))
    x, radial, direction, *weights = gated_inputs(vec, **ODD).values()
    torsions = paper_torsions(ops, vec, graph)
    expected = ops.gated_sum(x, radial, direction, torsions, graph, *weights)
    assert torch.equal(ops.gated_sum(x, radial, direction, change(torsions), graph, *weights), expected)


def test_expanded_arrays():
    """One number that stands for many lies alone in memory."""
    vec, graph = GRAPHS["not symmetric"]
    one_way = graph._replace(rev=torch.tensor([-1]).expand(len(vec)))
    expected = all_operators(vec, graph._replace(rev=torch.full((len(vec),), -1)))
    assert_same_bits(all_operators(vec, one_way), expected)


def test_inputs_are_left_alone():
    vec, graph = GRAPHS["batch"]
    tensors = {name: value.requires_grad_() for name, value in gated_inputs(vec, **ODD).items()}
    before = {name: value.detach().clone() for name, value in tensors.items()}
    arrays = [array.clone() for array in graph_arrays(graph)]
    value = gated_function(ops, vec, graph)(*tensors.values())
    cotangent = torch.randn_like(value)
    kept = cotangent.clone()
    first = torch.autograd.grad(value, list(tensors.values()), cotangent, create_graph=True)
    copies = [gradient.detach().clone() for gradient in first]
    torch.autograd.grad(first, list(tensors.values()), [torch.ones_like(gradient) for gradient in first])
    assert_same_bits({name: value.detach() for name, value in tensors.items()}, before)
    assert torch.equal(cotangent, kept) and all(map(torch.equal, graph_arrays(graph), arrays))
    assert all(torch.equal(gradient, copy) for gradient, copy in zip(first, copies, strict=True))


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", [name for name in DIFFERENTIABLE if not name.startswith(("linear", "row_chain"))])
def test_autocast_runs_the_operators_in_float32(name, low):
    chosen = case(name, *GRAPHS["batch"], ODD)
    given, run = cast(chosen.inputs, low), chosen.function(ops)
    expected = run(*cast(given, torch.float32).values())
    with torch.autocast("cpu", torch.bfloat16):
        found = run(*given.values())
    for value, exact in zip(*(v if isinstance(v, tuple) else (v,) for v in (found, expected)), strict=True):
        assert value.dtype == torch.float32 and torch.equal(value, exact)


@pytest.mark.parametrize("num_in, num_out", [(300, 3), (3, 300)])
def test_lopsided_tiles(num_in, num_out):
    """Many edges into an atom and few out of it, and the other way round."""
    count, pos = max(num_in, num_out), torch.randn(300, 3, generator=torch.Generator().manual_seed(0)).double()
    edges = [(atom, 0) for atom in range(1, num_in + 1)] + [(0, atom) for atom in range(1, num_out + 1)]
    graph = build_graph(torch.tensor(edges).T, count + 1)
    vec = torch.cat([-pos[:num_in], pos[:num_out]])
    given = gated_inputs(vec, **ODD)
    found, expected = (derivatives(gated_function(operators, vec, graph), given) for operators in (ops, reference))
    assert_close(found, expected, 1e-10)  # of 900 directions some come as close as 0.01 to an axis: 1e-16 / 0.01^3


def test_no_channels():
    vec, graph = crowd()
    given = gated_inputs(vec, **ODD)
    given |= {name: given[name][:0] for name in ("angle_expand", "torsion_expand")} | {"x": given["x"][:, :0]}
    found = derivatives(gated_function(ops, vec, graph), given)
    assert found["value 0"].shape == (len(vec), 0)
    assert all((tensor == 0).all() for tensor in found.values())
