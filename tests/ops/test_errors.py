"""A bad argument is one error that names it, and never a crash."""

from functools import partial

import pytest
import torch
from molecules import EXACT, SMALL, as_data
from operator_cases import CASES, DIFFERENTIABLE, case, gated_inputs, other, paper_torsions, raises
from operator_graphs import small_graph

from spherenet_fast import ops
from spherenet_fast.graph import build_graph, radius_graph
from spherenet_fast.models import SphereNet
from spherenet_fast.ops._register import graph_arrays

VEC, GRAPH = small_graph()
EDGES, ATOMS = len(VEC), len(GRAPH.in_ptr) - 1
L, K, C, P, Q = 3, 2, 5, 2, 3
DOUBLE = dict(dtype=torch.float64)
TORSIONS = paper_torsions(ops, VEC, GRAPH)


def graph_fields(changes):
    """Those of the changes that belong to the graph, as a graph; the others."""
    fields = {name: value for name, value in changes.items() if name in GRAPH._fields}
    rest = {name: value for name, value in changes.items() if name not in fields}
    return {"graph": GRAPH._replace(**fields), **rest}


@pytest.mark.parametrize("dtype", [torch.int64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_the_first_input_is_of_a_floating_dtype(name, dtype):
    chosen = case(name, VEC, GRAPH)
    (first, x), *others = chosen.inputs.items()
    with pytest.raises(
        RuntimeError, match=f"{chosen.names.get(first, first)}: expected dtype float32 or float64, got "
    ):
        chosen.function(ops)(x.to(dtype), *(value for _, value in others))


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_all_inputs_have_the_dtype_of_the_first(name):
    chosen = case(name, VEC, GRAPH)
    for name in list(chosen.inputs)[1:]:
        given = chosen.inputs
        if given[name] is not None:
            with pytest.raises(RuntimeError, match=f"{chosen.names.get(name, name)}: expected dtype Double, got Float"):
                chosen.function(ops)(*(given | {name: given[name].float()}).values())


BAD_GRAPHS = [
    (dict(in_ptr=GRAPH.in_ptr.int()), "in_ptr: expected dtype Long, got Int"),
    (dict(in_ptr=GRAPH.in_ptr[:-1]), r"in_ptr|out_ptr: expected shape"),
    (dict(in_ptr=GRAPH.in_ptr[:0]), "in_ptr: expected at least one offset"),
    (dict(in_ptr=GRAPH.in_ptr[:, None]), "in_ptr: expected shape"),
    (dict(in_ptr=other(GRAPH.in_ptr, 0, -1)), "in_ptr: expected ascending offsets from 0 to at most 12"),
    (dict(in_ptr=other(GRAPH.in_ptr, -1, EDGES + 1)), "in_ptr: expected ascending offsets from 0 to at most 12"),
    (dict(in_ptr=other(GRAPH.in_ptr, 1, 9)), "in_ptr: expected ascending offsets from 0 to at most 12"),
    (dict(in_ptr=other(GRAPH.in_ptr, 1, 2**62)), "in_ptr: expected ascending offsets from 0 to at most 12"),
    (dict(in_ptr=other(GRAPH.in_ptr, -1, EDGES - 1)), "out_ptr: expected 11 at its end as in in_ptr, got 12"),
    (dict(out_ptr=GRAPH.out_ptr.float()), "out_ptr: expected dtype Long, got Float"),
    (dict(out_ptr=GRAPH.out_ptr[:-1]), r"out_ptr: expected shape \[5\], got \[4\]"),
    (dict(out_ptr=other(GRAPH.out_ptr, 1, 9)), "out_ptr: expected ascending offsets from 0 to at most 12"),
    (dict(out_ptr=other(GRAPH.out_ptr, 0, 1)), "out_ptr: expected ascending offsets from 0 to at most 12"),
    (dict(out_edge=GRAPH.out_edge.int()), "out_edge: expected dtype Long, got Int"),
    (dict(out_edge=GRAPH.out_edge[:-1]), r"out_edge: expected shape \[12\], got \[11\]"),
    (dict(out_edge=other(GRAPH.out_edge, 4, EDGES)), "out_edge: expected values in 0 .. 11, got 12 at position 4"),
    (dict(out_edge=other(GRAPH.out_edge, 4, -1)), "out_edge: expected values in 0 .. 11, got -1 at position 4"),
    (dict(out_edge=GRAPH.out_edge // 2), "out_edge: expected every number once, got . twice"),
    (dict(rev=GRAPH.rev.int()), "rev: expected dtype Long, got Int"),
    (dict(rev=GRAPH.rev[1:]), r"rev: expected shape \[12\], got \[11\]"),
    (dict(rev=other(GRAPH.rev, 3, EDGES)), "rev: expected values in -1 .. 11, got 12 at position 3"),
    (dict(rev=other(GRAPH.rev, 3, -2)), "rev: expected values in -1 .. 11, got -2 at position 3"),
    (dict(triplet_ptr=GRAPH.triplet_ptr.int()), "triplet_ptr: expected dtype Long, got Int"),
    (dict(triplet_ptr=GRAPH.triplet_ptr[:-1]), r"triplet_ptr: expected shape \[5\], got \[4\]"),
    (dict(triplet_ptr=other(GRAPH.triplet_ptr, 2, 17)), "triplet_ptr: expected 18 at atom 2, got 17"),
    (dict(triplet_ptr=GRAPH.triplet_ptr + 1), "triplet_ptr: expected 0 at atom 0, got 1"),
]


@pytest.mark.parametrize("changes, message", BAD_GRAPHS)
def test_bad_graphs(changes, message):
    given = dict(gated_inputs(VEC, L, K, C, P, Q), torsion=TORSIONS)
    raises(message, ops.gated_sum, given | {"graph": GRAPH}, graph_fields(changes))
    raises(message, partial(paper_torsions, ops), {"vec": VEC, "graph": GRAPH}, graph_fields(changes))


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(vec=VEC[:, :2]), r"vec: expected shape \[any, 3\], got \[12, 2\]"),
        (dict(vec=VEC[:-1]), "in_ptr: expected ascending offsets|out_edge: expected shape"),
        (dict(num_triplets=7), "num_triplets: expected at least 36, the end of triplet_ptr, got 7"),
    ],
)
def test_paper_torsions(changes, message):
    raises(message, partial(paper_torsions, ops), {"vec": VEC, "graph": GRAPH}, graph_fields(changes))


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(x=torch.zeros(EDGES)), r"x: expected shape \[any, any\], got \[12\]"),
        (dict(x=torch.zeros(EDGES - 1, C, **DOUBLE)), "in_ptr: expected ascending|out_edge: expected shape"),
        (dict(x=torch.zeros(EDGES, C)), "radial: expected dtype Float, got Double"),
        (dict(x=torch.zeros(EDGES, C + 1, **DOUBLE)), r"angle_expand: expected shape \[6, 2\], got \[5, 2\]"),
        (dict(radial=None), "radial"),
        (dict(radial=torch.zeros(EDGES + 1, L, K, **DOUBLE)), r"radial: expected shape \[12, any, any\]"),
        (dict(radial=torch.zeros(EDGES, L * K, **DOUBLE)), r"radial: expected shape \[12, any, any\]"),
        (dict(radial=torch.zeros(EDGES, 9, K, **DOUBLE)), "radial: expected 1 .. 8 orders, got 9"),
        (dict(radial=torch.zeros(EDGES, 0, K, **DOUBLE)), "radial: expected 1 .. 8 orders, got 0"),
        (dict(radial=torch.zeros(EDGES, L, 17, **DOUBLE)), "radial: expected 1 .. 16 functions, got 17"),
        (dict(radial=torch.zeros(EDGES, L, K + 1, **DOUBLE)), r"angle_weight: expected shape \[any, 9\], got \[2, 6\]"),
        (dict(direction=None), "direction"),
        (dict(direction=VEC[:, :2]), r"direction: expected shape \[12, 3\], got \[12, 2\]"),
        (dict(torsion=None), "torsion: expected one beside torsion_weight, got none"),
        (dict(torsion=TORSIONS.long()), "torsion: expected dtype Int, got Long"),
        (dict(torsion=TORSIONS[1:]), "torsion: expected at least 36, the end of triplet_ptr, got 35"),
        (dict(torsion=other(TORSIONS, 10, 3)), "torsion: expected values in -2 .. 2 around atom 1, got others"),
        (dict(torsion=other(TORSIONS, 10, -3)), "torsion: expected values in -2 .. 2 around atom 1, got others"),
        (dict(angle_weight=None), "angle_expand: expected both or neither of angle_weight and angle_expand"),
        (dict(angle_weight=None, angle_expand=None), "angle_weight: expected one beside torsion_weight, got none"),
        (dict(angle_weight=torch.zeros(0, L * K, **DOUBLE)), "angle_expand|angle_weight"),
        (dict(angle_expand=None), "angle_expand: expected both or neither of angle_weight and angle_expand"),
        (dict(angle_expand=torch.zeros(C, P + 1, **DOUBLE)), r"angle_expand: expected shape \[5, 2\], got \[5, 3\]"),
        (dict(torsion_weight=None), "torsion_expand: expected both or neither of torsion_weight and torsion_expand"),
        (dict(torsion_weight=torch.zeros(Q, L * K, **DOUBLE)), r"torsion_weight: expected shape \[any, 18\]"),
        (dict(torsion_expand=None), "torsion_expand: expected both or neither of torsion_weight and torsion_expand"),
        (dict(torsion_expand=torch.zeros(Q, C, **DOUBLE)), r"torsion_expand: expected shape \[5, 3\], got \[3, 5\]"),
    ],
)
def test_gated_sum(changes, message):
    given = dict(gated_inputs(VEC, L, K, C, P, Q), torsion=TORSIONS, graph=GRAPH)
    raises(message, ops.gated_sum, given, changes)


def test_unknown_basis():
    given = dict(gated_inputs(VEC, L, K, C, P, Q), torsion=TORSIONS, graph=GRAPH, basis="other")
    with pytest.raises(ValueError, match="basis: expected 'paper' or 'dig', got 'other'"):
        ops.gated_sum(**given)


def test_angles_elsewhere():
    given = dict(gated_inputs(VEC, L, K, C, P, Q), torsion=TORSIONS, graph=GRAPH)
    with pytest.raises(ValueError, match="angle_at: expected 'sender' or 'receiver', got 'k'"):
        ops.gated_sum(**given, angle_at="k")
    with pytest.raises(RuntimeError, match="torsion_weight: expected none beside angles at the receiver, got one"):
        ops.gated_sum(**given, angle_at="receiver")


def test_bad_cotangents():
    """The operators of the derivatives can be called alone."""
    compiled = torch.ops.spherenet_fast
    x, radial, direction, *weights = gated_inputs(VEC, L, K, C, P, Q).values()
    arguments = [x, radial, direction, None, *weights, TORSIONS, *graph_arrays(GRAPH), False, False, False, True, True]
    with pytest.raises(RuntimeError, match=r"grad_out: expected shape \[12, 5\], got \[12, 4\]"):
        compiled.gated_sum_backward(x[:, :4], *arguments)
    with pytest.raises(RuntimeError, match="grad_out: expected dtype Double, got Float"):
        compiled.gated_sum_backward(x.float(), *arguments)
    with pytest.raises(RuntimeError, match=r"grad_grad_radial: expected shape \[12, 3, 2\], got \[11, 3, 2\]"):
        compiled.gated_sum_double_backward(None, radial[1:], *[None] * 6, x, *arguments)
    with pytest.raises(RuntimeError, match="grad_grad_x: expected dtype Double, got Float"):
        compiled.gated_sum_double_backward(x.float(), *[None] * 7, x, *arguments)


def test_corrupted_graphs_never_crash():
    """Random numbers anywhere in the arrays of a graph: an error, or a result of the right shape."""
    generator = torch.Generator().manual_seed(0)
    given = gated_inputs(VEC, L, K, C, P, Q)
    refused = 0
    for number in range(400):
        name = ("in_ptr", "out_ptr", "out_edge", "rev", "triplet_ptr")[number % 5]
        array = getattr(GRAPH, name).clone()
        place = torch.randint(len(array), (2,), generator=generator)
        array[place] = torch.randint(-3, EDGES + 3, (2,), generator=generator)
        graph = GRAPH._replace(**{name: array})
        try:
            assert paper_torsions(ops, VEC, graph).shape == TORSIONS.shape
            leaves = [value.clone().requires_grad_() for value in given.values()]
            value = ops.gated_sum(*leaves[:3], TORSIONS, graph, *leaves[3:])
            assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(value.sum(), leaves))
        except RuntimeError as error:
            assert f"{name}: expected" in str(error) or "_ptr: expected" in str(error)
            refused += 1
    assert 200 < refused < 400  # some arrays came out as they were, or with other reverse edges


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_vectors_without_direction_never_crash(value):
    vec = VEC.clone()
    vec[[2, 7]] = value
    found = paper_torsions(ops, vec, GRAPH)
    assert found.min() >= -2 and found.max() < 3


def test_a_model_passes_errors_on():
    z, pos = EXACT["water"]
    model = SphereNet(**SMALL).double()
    with pytest.raises(ValueError, match="pos: expected atoms at least"):
        model(as_data(z, torch.zeros(3, 3, **DOUBLE)))
    with pytest.raises(ValueError, match="data.z: expected device cpu as for pos, got meta"):
        model(as_data(z.to("meta"), pos))
    graph = radius_graph(pos, None, 5.0)
    bad = graph._replace(rev=graph.rev + len(graph.rev))
    with pytest.raises(RuntimeError, match="rev: expected values in -1 .. 5"):
        model(as_data(z, pos), bad)
    with pytest.raises(ValueError, match=r"edge_index: expected atoms from 0 to 2 \(num_nodes - 1\), got 0 to 3"):
        build_graph(torch.tensor([[0, 3], [1, 2]]), 3)
    with pytest.raises(ValueError, match="edge_index: expected edges sorted by receiver"):
        build_graph(torch.tensor([[0, 1], [1, 0]]), 3)
