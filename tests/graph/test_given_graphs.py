"""What SPHERENET_FAST_CHECKS=1 finds: graphs, indices and their transposes, whose wrong numbers are within range."""

import pytest
import torch
from crystals import CRYSTALS
from molecules import SMALL, as_data, rattled, rattled_batch, with_outputs
from operator_cases import gated_inputs, paper_torsions
from operator_graphs import small_graph

from spherenet_fast import ops
from spherenet_fast.cuda_graph import Capacity, CapturedInference
from spherenet_fast.graph import radius, radius_graph
from spherenet_fast.graph.padding import PaddedBatch, padded_graph
from spherenet_fast.models import MODELS, SphereNet

DATA = rattled_batch((5, 6))
GRAPH = radius_graph(DATA.pos, DATA.batch, 5.0)


@pytest.fixture(autouse=True)
def checks(monkeypatch):
    monkeypatch.setenv("SPHERENET_FAST_CHECKS", "1")


def small(name="SphereNet", **changes):
    return with_outputs(SphereNet(**SMALL | changes) if name == "SphereNet" else MODELS[name](cutoff=5.0)).double()


def exchanged(array, first, second):
    array = array.clone()
    array[[first, second]] = array[[second, first]]
    return array


WRONG = [
    (dict(rev=exchanged(GRAPH.rev, 0, 1)), r"graph.rev: expected \d+ at 0 as the edges say, got"),
    (dict(rev=torch.full_like(GRAPH.rev, -1)), r"graph.rev: expected \d+ at 0 as the edges say, got -1"),
    (dict(out_edge=exchanged(GRAPH.out_edge, 0, 1)), r"graph.out_edge: expected \d+ at 0 as the edges say, got"),
    (dict(triplet_ptr=GRAPH.triplet_ptr.flip(0)), "graph.triplet_ptr: expected 0 at 0 as the edges say, got"),
    (dict(num_triplets=3), f"graph.num_triplets: expected at least {GRAPH.num_triplets}, got 3"),
    (dict(edge_index=GRAPH.edge_index.flip(1)), "graph.edge_index: expected edges sorted by receiver"),
    (dict(rev=GRAPH.rev[:-1]), r"graph.rev: expected \d+ entries, got"),
]


@pytest.mark.parametrize("changes, message", WRONG)
def test_arrays_that_do_not_belong_together(changes, message):
    model, graph = small(), GRAPH._replace(**changes)
    with pytest.raises(ValueError, match=message):
        model(DATA, graph)
    with pytest.raises(ValueError, match=message):
        model.energy_and_forces(DATA, graph)


@pytest.mark.parametrize("name", MODELS)
def test_the_graph_of_another_molecule(name):
    """The same number of atoms: neither shape nor range tells."""
    other = rattled_batch((5, 6), seed=7)
    other.pos = 1.3 * other.pos
    theirs = radius_graph(other.pos, other.batch, 5.0)
    model = small(name)
    with pytest.raises(ValueError, match="graph: expected (all|edges shorter)"):
        model(DATA, theirs)
    with pytest.raises(ValueError, match=r"graph: expected edges shorter than the cutoff 5.0, got .* for edge"):
        model(other, GRAPH)
    parts = torch.tensor([0] * 6 + [1] * 5)
    with pytest.raises(ValueError, match=r"graph: expected edges within one molecule, got edge \d+ from atom"):
        model(as_data(DATA.z, DATA.pos, parts), GRAPH)


def test_it_is_trusted_otherwise(monkeypatch):
    monkeypatch.delenv("SPHERENET_FAST_CHECKS")
    assert small()(DATA, GRAPH._replace(rev=exchanged(GRAPH.rev, 0, 1))).isfinite().all()


@pytest.mark.parametrize("name", CRYSTALS)
def test_a_shift_that_is_not_opposite(name):
    data = CRYSTALS[name]
    batch = torch.zeros_like(data.z)
    graph = radius_graph(data.pos, batch, 5.0, data.cell, data.pbc)
    model = small()
    model(data, graph)
    for shift in (graph.shift + data.pbc.long(), torch.zeros_like(graph.shift)):
        with pytest.raises(ValueError, match="graph"):
            model(data, graph._replace(shift=shift))


def test_right_graphs_pass(monkeypatch):
    monkeypatch.setattr(radius, "_truncation_reported", True)
    data = as_data(torch.tensor([1, 6, 8]), rattled(3, 1))
    for most in (None, 2):
        model = small(max_num_neighbors=most)
        graph = radius_graph(DATA.pos, DATA.batch, 5.0, max_num_neighbors=most)
        assert torch.equal(model(DATA, graph), model(DATA))
    lonely = rattled_batch((1, 5, 1))
    lonely.pos[3] += 50
    for given in (lonely, DATA):
        in_float32 = as_data(given.z, given.pos.float(), given.batch)
        small().float()(in_float32, radius_graph(given.pos, given.batch, 5.0))  # found before positions were rounded
    empty = as_data(torch.zeros(0).long(), torch.zeros(0, 3).double(), torch.zeros(0).long(), num_graphs=0)
    assert small()(empty, radius_graph(empty.pos, empty.batch, 5.0)).shape == (0, 1)
    assert small()(data, radius_graph(data.pos, None, 5.0)).shape == (1, 1)


def test_graphs_with_room_for_more():
    capacity = Capacity(4, 15, len(GRAPH.rev) + 9, GRAPH.num_triplets + 30)
    padded = PaddedBatch(capacity, 5.0, DATA.pos)
    padded.fill(DATA.z, DATA.pos, DATA.batch, 2)
    graph, model = padded_graph(GRAPH, capacity), small()
    model(padded, graph)
    with pytest.raises(ValueError, match="graph.rev: expected"):
        model(padded, graph._replace(rev=exchanged(graph.rev, 0, 1)))
    predict = CapturedInference(model.eval(), Capacity.of([DATA], 5.0))
    predict(DATA, GRAPH)
    with pytest.raises(ValueError, match="graph.rev: expected"):
        predict(DATA, GRAPH._replace(rev=exchanged(GRAPH.rev, 0, 1)))
    crystal = CRYSTALS["slab"]
    batch = torch.zeros_like(crystal.z)
    data = as_data(**vars(crystal) | dict(batch=batch, num_graphs=1))
    found = radius_graph(data.pos, batch, 5.0, data.cell, data.pbc)
    predict = CapturedInference(model, Capacity(1, 40, len(found.rev) + 5, found.num_triplets + 7))
    torch.testing.assert_close(predict(data)[0], model(data).detach(), rtol=1e-11, atol=1e-12)


# ---- operators, which have the edges' numbers alone ------------------------------------------------------------------

VEC, OPERATORS = small_graph()


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(rev=exchanged(OPERATORS.rev, 0, 5)), r"rev: expected the edge from \d+ to \d+ for edge 0, got \d+"),
        (dict(out_edge=exchanged(OPERATORS.out_edge, 0, 1)), r"out_edge: expected ascending edges out of atom 0"),
        (dict(out_edge=exchanged(OPERATORS.out_edge, 0, 11)), r"(rev|out_edge): expected"),
    ],
)
def test_operators_compare_their_arrays(changes, message, monkeypatch):
    torsions = paper_torsions(ops, VEC, OPERATORS)
    bad = OPERATORS._replace(**changes)
    given = gated_inputs(VEC)
    for function in (
        lambda: paper_torsions(ops, VEC, bad),
        lambda: ops.gated_sum(**given, torsion=torsions, graph=bad),
    ):
        with pytest.raises(RuntimeError, match=message):
            function()
    monkeypatch.delenv("SPHERENET_FAST_CHECKS")
    assert ops.gated_sum(**given, torsion=torsions, graph=bad).shape == given["x"].shape


def test_an_index_and_its_transpose():
    x, atoms = torch.rand(12, 3), torch.rand(4, 3)
    sender, receiver = OPERATORS.edge_index
    ops.segment_sum(x, OPERATORS.in_ptr, None, receiver)
    ops.segment_sum(x, OPERATORS.out_ptr, OPERATORS.out_edge, sender)
    ops.gather(atoms, sender, OPERATORS.out_ptr, OPERATORS.out_edge)
    with pytest.raises(RuntimeError, match=r"segment: expected 0 at position 0 as ptr says, got 3"):
        ops.segment_sum(x, OPERATORS.in_ptr, None, receiver.flip(0))
    with pytest.raises(RuntimeError, match=r"index: expected 0 at position 0 as ptr says, got \d"):
        ops.gather(atoms, sender, OPERATORS.in_ptr)
    with pytest.raises(RuntimeError, match=r"perm: expected every number once, got . twice"):
        ops.gather(atoms, sender, OPERATORS.out_ptr, OPERATORS.out_edge // 2)
    with pytest.raises(RuntimeError, match=r"ptr: expected ascending offsets from 0 to at most 12"):
        ops.gather(atoms, sender, OPERATORS.out_ptr.flip(0), OPERATORS.out_edge)
