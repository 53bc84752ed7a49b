"""Graphs and batches with room to spare: the same numbers as without, and zeros in padding."""

import pytest
import torch
from graph_oracles import random_batch
from molecules import SMALL, rattled_batch, with_outputs
from operator_cases import assert_close, derivatives, gated_inputs, paper_torsions
from operator_graphs import GRAPHS

from spherenet_fast import ops
from spherenet_fast.graph import edge_vectors, periodic, radius_graph
from spherenet_fast.graph.padding import Capacity, CapacityError, PaddedBatch, fixed_radius_graph, padded_graph
from spherenet_fast.graph.radius import kernel_graph
from spherenet_fast.models import SphereNet

MORE_ATOMS, MORE_EDGES, MORE_PAIRS = 3, 7, 11


def room_for(graph):
    sizes = len(graph.in_ptr) - 1 + MORE_ATOMS, len(graph.rev) + MORE_EDGES, graph.num_triplets + MORE_PAIRS
    return Capacity(1, *sizes)


def assert_same_graph(found, expected):
    assert found._fields == expected._fields
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other) if isinstance(other, torch.Tensor) else one == other


# ---- operators -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gates", [dict(), dict(use_torsion=False), dict(use_torsion=False, use_angle=False)])
@pytest.mark.parametrize("name", GRAPHS)
def test_gated_sum(name, gates):
    """Rows of padding take no part, whatever is in them, and come out as zeros, in all derivatives."""
    vec, graph = GRAPHS[name]
    room, edges = padded_graph(graph, room_for(graph)), len(vec)
    torsions, more_vec = paper_torsions(ops, vec, graph), torch.randn(MORE_EDGES, 3, dtype=vec.dtype)
    in_room = paper_torsions(ops, torch.cat([vec, more_vec]), room)
    assert in_room.shape == (graph.num_triplets + MORE_PAIRS,) and torch.equal(in_room[: graph.num_triplets], torsions)
    inputs = gated_inputs(vec, **gates)
    of_edges = ("x", "radial", "direction")
    more = {f"more {key}": _more_rows(inputs[key]) for key in of_edges}

    def plain(x, radial, direction, angle_weight, angle_expand, torsion_weight, torsion_expand, more_x, *_):
        weights = angle_weight, angle_expand, torsion_weight, torsion_expand
        reference = None if torsion_weight is None else torsions
        return ops.gated_sum(x, radial, direction, reference, graph, *weights), 0 * more_x

    def with_room(x, radial, direction, angle_weight, angle_expand, torsion_weight, torsion_expand, *more):
        weights = angle_weight, angle_expand, torsion_weight, torsion_expand
        rows = [None if v is None else torch.cat([v, m]) for v, m in zip((x, radial, direction), more, strict=True)]
        value = ops.gated_sum(*rows, None if torsion_weight is None else in_room, room, *weights)
        return value[:edges], value[edges:]

    expected, found = (derivatives(function, inputs | more) for function in (plain, with_room))
    # the same kernels on the same tiles
    assert_close(found, expected, 1e-14)


@pytest.mark.parametrize("name", ["batch", "not symmetric", "no edges"])
def test_smooth_torsion(name, poisoned_memory):
    """The same of rows and columns of padding: zeros are written there, in all derivatives."""
    vec, graph = GRAPHS[name]
    room = padded_graph(graph, room_for(graph))
    inputs = {"direction": vec / vec.norm(dim=1, keepdim=True), "fade": torch.rand(len(vec), dtype=vec.dtype)}
    more = {f"more {key}": _more_rows(value) for key, value in inputs.items()}

    def plain(direction, fade, *_):
        return torch.nn.functional.pad(ops.smooth_torsion(direction, fade, graph), (0, MORE_PAIRS))

    def with_room(direction, fade, more_direction, more_fade):
        return ops.smooth_torsion(torch.cat([direction, more_direction]), torch.cat([fade, more_fade]), room)

    expected, found = (derivatives(function, inputs | more) for function in (plain, with_room))
    # the same kernels on the same tiles
    assert_close(found, expected, 1e-14)


def _more_rows(tensor):
    return None if tensor is None else torch.randn(MORE_EDGES, *tensor.shape[1:], dtype=tensor.dtype)


@pytest.mark.parametrize("name", GRAPHS)
def test_sums_and_their_transpose(name):
    _, graph = GRAPHS[name]
    room, edges, atoms = padded_graph(graph, room_for(graph)), len(graph.rev), len(graph.in_ptr) - 1
    per_edge = torch.randn(edges + MORE_EDGES, 3, dtype=torch.float64)
    per_atom = torch.randn(atoms + MORE_ATOMS, 3, dtype=torch.float64)
    for row, ptr, perm in ((1, "in_ptr", None), (0, "out_ptr", "out_edge")):
        index, offsets, permutation = room.edge_index[row], getattr(room, ptr), perm and getattr(room, perm)
        expected = torch.zeros(atoms + MORE_ATOMS, 3).double().index_add(0, index[:edges], per_edge[:edges])
        gathered = ops.gather(per_atom, index, offsets, permutation)
        assert torch.equal(gathered[:edges], per_atom[index[:edges]]) and (gathered[edges:] == 0).all()
        for segment in (None, index):
            sums = ops.segment_sum(per_edge, offsets, permutation, segment)
            torch.testing.assert_close(sums, expected)  # sums of a few float64 numbers
            leaf = per_edge.clone().requires_grad_()
            (slope,) = torch.autograd.grad(ops.segment_sum(leaf, offsets, permutation, segment), leaf, per_atom)
            assert torch.equal(slope, gathered)
        leaf = per_atom.clone().requires_grad_()
        (slope,) = torch.autograd.grad(ops.gather(leaf, index, offsets, permutation), leaf, per_edge)
        assert torch.equal(slope, sums)


# ---- the search for neighbors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", [[7], [1, 9, 2], [4] * 6, [0, 5, 0, 1, 70, 0, 3], [1, 1, 1], [0]])
def test_the_operators_find_the_same_graph(sizes, dtype):
    pos, batch = random_batch(sizes, dtype)
    assert_same_graph(kernel_graph(pos, batch, 2.0), radius_graph(pos, batch, 2.0))
    assert_same_graph(kernel_graph(pos, None, 2.0), radius_graph(pos, None, 2.0))


def test_the_operators_judge_as_the_search_does():
    pair = torch.tensor([[0.0, 0, 0], [3, 0, 0]])
    assert kernel_graph(pair, None, 3.0).edge_index.shape == (2, 0)
    assert kernel_graph(pair, None, 3.0000001).edge_index.shape == (2, 2)
    # each distance once as the cutoff: no two ways of rounding would agree on all of them
    pos = torch.rand(12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for cutoff in periodic._distances(pos[None])[0][tuple(torch.triu_indices(12, 12, 1))].tolist():
        assert_same_graph(kernel_graph(pos, None, cutoff), radius_graph(pos, None, cutoff))


@pytest.mark.parametrize(
    "change",
    [
        dict(pos=torch.full((3, 3), torch.nan)), dict(pos=torch.zeros(3, 3)), dict(batch=torch.tensor([0, 1, 0])),
        dict(batch=torch.tensor([-1, 0, 0])), dict(pos=torch.tensor([[0.0, 0, 0], [1, 0, torch.inf], [2, 0, 0]])),
        # a NaN is no neighbor of anybody: nothing else would tell of a coordinate that nobody looks at
        *[dict(pos=torch.eye(3).index_put((torch.tensor(1), torch.tensor(axis)), torch.tensor(torch.nan)))
          for axis in range(3)],
    ],
)  # fmt: skip
def test_anything_wrong_is_said_and_leaves_no_edges(change):
    given = dict(pos=torch.eye(3), batch=torch.zeros(3, dtype=torch.int64)) | change
    assert kernel_graph(**given, cutoff=5.0) is None
    graph, status = fixed_radius_graph(**given, cutoff=5.0, capacity=Capacity(1, 3, 6, 12))
    assert status[2] > 0 and (graph.in_ptr == 0).all() and not graph.present.any()
    with pytest.raises(ValueError):
        radius_graph(**given, cutoff=5.0)


def test_found_in_fixed_size():
    pos, batch = random_batch([4, 0, 9, 1], torch.float64)
    exact = radius_graph(pos, batch, 2.0)
    capacity = Capacity(4, len(pos), len(exact.rev) + 5, exact.num_triplets + 6)
    found, status = fixed_radius_graph(pos, batch, 2.0, capacity)
    assert status.tolist() == [len(exact.rev), exact.num_triplets, 0]
    assert_same_graph(found, padded_graph(exact, capacity))
    for name in ("edges", "triplets"):
        small = capacity._replace(**{name: status[("edges", "triplets").index(name)].item() - 1})
        graph, found_status = fixed_radius_graph(pos, batch, 2.0, small)
        assert torch.equal(found_status, status) and not graph.present.any()
        assert (graph.in_ptr == 0).all() and (graph.triplet_ptr == 0).all()


def test_rows_that_the_first_step_did_not_count():
    """The second step alone, with offsets that are not those of the positions: an error, or rows in range."""
    pos = torch.eye(3)
    for offsets in ([0, 0, 0, 0], [0, 5, 5, 6], [0, 1, 2, 9], [0, 0, 0, 9]):
        edge_index, out_edge, rev = ops.neighbor_edges(pos, None, torch.tensor(offsets), 5.0, 9)
        assert edge_index.min() >= -1 and edge_index.max() < 3 and rev.min() >= -1 and rev.max() < 9
        assert out_edge.min() >= 0 and out_edge.max() < 9
    with pytest.raises(RuntimeError, match="in_ptr: expected ascending offsets from 0 to at most 9"):
        ops.neighbor_edges(pos, None, torch.tensor([0, 2, 4, 10]), 5.0, 9)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(pos=torch.eye(3).half()), "pos: expected dtype float32 or float64, got Half"),
        (dict(pos=torch.eye(4)), r"pos: expected shape \[any, 3\], got \[4, 4\]"),
        (dict(batch=torch.zeros(3).int()), "batch: expected dtype Long, got Int"),
        (dict(batch=torch.zeros(2).long()), r"batch: expected shape \[3\], got \[2\]"),
        (dict(cutoff=-1.0), "cutoff: expected a positive finite number, got -1"),
    ],
)
def test_bad_arguments(change, message):
    given = dict(pos=torch.eye(3), batch=None, cutoff=2.0) | change
    with pytest.raises(RuntimeError, match=message):
        ops.neighbor_pointers(**given)
    with pytest.raises(RuntimeError, match=message):
        ops.neighbor_edges(**given, in_ptr=torch.tensor([0, 0, 0, 0]), num_edges=0)


# ---- a whole model ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(6, 9, 1, 4), (5,), (1, 1)])
def test_a_model_in_padding(sizes):
    data = rattled_batch(sizes, seed=2)
    graph = radius_graph(data.pos, data.batch, 5.0)
    capacity = Capacity(len(sizes) + 2, len(data.z) + 5, len(graph.rev) + 9, graph.num_triplets + 30)
    padded = PaddedBatch(capacity, 5.0, data.pos)
    padded.fill(data.z, data.pos, data.batch, len(sizes))
    in_room, _ = fixed_radius_graph(padded.pos, padded.batch, 5.0, capacity)
    assert_same_graph(in_room, padded_graph(graph, capacity))
    model = with_outputs(SphereNet(**SMALL)).double().train()
    results = []
    for given, given_graph in ((data, graph), (padded, in_room)):
        model.zero_grad()
        energy, forces = model.energy_and_forces(given, given_graph)
        energy, forces = energy[: len(sizes)], forces[: len(data.z)]
        (energy.square().sum() + forces.square().sum()).backward()
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        results.append({"energy": energy.detach(), "forces": forces.detach()} | gradients)
    # the same sums, in matrix products of other sizes
    assert_close(*results, 1e-12)


def test_vectors_in_padding_are_lengths_with_derivatives():
    pos = torch.tensor([[0.0, 0, 0], [1, 0, 0]], dtype=torch.float64, requires_grad=True)
    graph = padded_graph(radius_graph(pos, None, 5.0), Capacity(1, 2, 5, 9))
    vec = edge_vectors(pos, graph)
    assert (vec[2:] == 1).all()
    (slope,) = torch.autograd.grad(vec.norm(dim=1).sum(), pos, create_graph=True)
    (second,) = torch.autograd.grad(slope.square().sum(), pos)
    assert slope.tolist() == [[-2, 0, 0], [2, 0, 0]] and second.isfinite().all()


# ---- capacities ------------------------------------------------------------------------------------------------------


def test_capacity_of_batches():
    batches = [rattled_batch(sizes, seed=1) for sizes in ((6, 9), (4, 4, 4), (3,))]
    graphs = [radius_graph(data.pos, data.batch, 5.0) for data in batches]
    largest = 3, 15, max(len(graph.rev) for graph in graphs), max(graph.num_triplets for graph in graphs)
    assert Capacity.of(batches, 5.0, spare=0) == largest
    assert all(size >= 1.5 * least for size, least in zip(Capacity.of(batches, 5.0, spare=0.5), largest, strict=True))
    with pytest.raises(ValueError, match="batches: expected at least one, got none"):
        Capacity.of([], 5.0)


@pytest.mark.parametrize("name, size", [("atoms", 8), ("edges", 15), ("triplets", 40)])
def test_a_graph_larger_than_its_room(name, size):
    data = rattled_batch((9,))
    graph = radius_graph(data.pos, None, 5.0)
    with pytest.raises(CapacityError, match=f"{name}: expected at most {size}, the capacity, got"):
        padded_graph(graph, Capacity(1, 20, 200, 2000)._replace(**{name: size}))
