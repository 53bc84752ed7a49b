"""What a model refuses or copies before it computes: tensors and models of inference mode, layouts, counts, cutoffs."""

import copy

import pytest
import torch
from molecules import as_data, rattled
from small_models import NAMES, small_model

from spherenet_fast.cuda_graph import Capacity, CapturedInference, CapturedTraining
from spherenet_fast.graph import build_graph, edge_vectors, radius_graph
from spherenet_fast.models import MODELS
from spherenet_fast.nn.hparams import arguments

CALLS = ["forward", "energy_and_forces", "energy_forces_stress"]


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def four_atoms(**changes):
    given = dict(
        z=torch.tensor([6, 8, 1, 7]), pos=rattled(4, 1), batch=torch.zeros(4).long(), cell=6 * torch.eye(3).double(),
        pbc=torch.ones(3).bool(), num_graphs=1,
    )  # fmt: skip
    return as_data(**given | changes)


def cloned(data):
    return as_data(**{key: v.clone() if isinstance(v, torch.Tensor) else v for key, v in vars(data).items()})


@pytest.mark.parametrize("call", CALLS)
def test_tensors_of_inference_mode_are_as_others(name, call):
    model = small_model(name)
    expected = getattr(model, call)(four_atoms())
    with torch.inference_mode():
        data = cloned(four_atoms())
        graph = radius_graph(data.pos, data.batch, model.cutoff, data.cell, data.pbc)
    assert data.pos.is_inference() and graph.rev.is_inference()
    for given in (None, graph):
        found = getattr(model, call)(data, given)
        for mine, other in zip(*(r if isinstance(r, tuple) else (r,) for r in (found, expected)), strict=True):
            assert torch.equal(mine, other)
    (found if call == "forward" else found[1]).square().sum().backward()  # training goes on with them


def test_a_model_of_inference_mode_predicts_there_and_says_what_it_cannot():
    with torch.inference_mode():
        model = small_model("SphereNet")
        expected = model(four_atoms())
    for call in CALLS:
        with pytest.raises(ValueError, match=r"model: expected weights made outside of torch.inference_mode\(\)"):
            getattr(model, call)(four_atoms())
    with torch.no_grad():
        assert torch.equal(model(four_atoms()), expected)
    energy, forces = copy.deepcopy(model).energy_and_forces(four_atoms())
    assert torch.equal(energy, expected)
    forces.square().sum().backward()


def test_a_model_moved_in_inference_mode_is_trained_outside():
    model = small_model("SphereNet")
    with torch.inference_mode():
        model.to("cpu")
    model.energy_and_forces(four_atoms())[1].square().sum().backward()


@pytest.mark.parametrize("given", [True, False], ids=["graph given", "graph found"])
def test_steps_of_fixed_size_run_in_inference_mode_and_out_of_it(given):
    model = small_model("SphereNet")
    data = four_atoms(cell=None, pbc=None, y=torch.ones(1, 1), forces=torch.ones(4, 3))
    graph = radius_graph(data.pos, data.batch, model.cutoff)
    capacity = Capacity.of([data], model.cutoff)
    predict = CapturedInference(small_model("SphereNet").eval(), capacity)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    step = CapturedTraining(model, lambda energy, forces, batch: forces.square().sum(), optimizer, capacity)
    with torch.inference_mode():
        inside, inside_graph = cloned(data), radius_graph(data.pos, data.batch, model.cutoff)
    found = []
    for mode, batch, its_graph in ((True, inside, inside_graph), (False, inside, inside_graph), (False, data, graph)):
        with torch.inference_mode(mode):
            found.append([*predict(batch, its_graph if given else None), step(batch, its_graph if given else None)])
    for values in zip(*found, strict=True):
        assert all(torch.equal(value, values[0]) for value in values)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("entry", ["z", "pos", "batch", "cell", "pbc"])
@pytest.mark.parametrize("layout", ["sparse", "nested"])
def test_tensors_that_are_not_dense(call, entry, layout):
    data = four_atoms()
    value = getattr(data, entry)
    other = value.to_sparse() if layout == "sparse" else torch.nested.nested_tensor([value])
    setattr(data, entry, other)
    with pytest.raises(TypeError, match=f"data.{entry}: expected a dense tensor, got (torch.sparse_coo|a nested one)"):
        getattr(small_model("SchNet"), call)(data)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(num_graphs=2**40), "data.num_graphs: expected an int from 1 to 16777216, got 1099511627776"),
        (dict(num_graphs=2**70), "data.num_graphs: expected an int from 1 to 16777216, got"),
        (dict(num_graphs=True), "data.num_graphs: expected an int from 1 to 16777216, got True"),
        (dict(num_graphs=torch.tensor(1)), r"data.num_graphs: expected an int from 1 to 16777216, got tensor\(1\)"),
        (
            dict(num_graphs=None, batch=torch.tensor([0, 0, 0, 2**40])),
            "data.batch: expected molecule numbers below 16777216, got 1099511627776",
        ),
        (dict(cell=torch.eye(3).double().repeat(2, 1, 1)), "data.cell: expected one for each of 1 structures, got 2"),
        (dict(cell=torch.zeros(0, 3, 3).double()), "data.cell: expected one for each of 1 structures, got 0"),
        (dict(cell=torch.eye(3).double().repeat(2, 1)), "data.cell: expected one for each of 1 structures, got 2"),
        (dict(pbc=torch.ones(2, 3).bool()), "data.pbc: expected one for each of 1 structures, got 2"),
        (dict(cell=None, pbc=torch.zeros(2, 3).bool()), "data.pbc: expected one for each of 1 structures, got 2"),
    ],
)
def test_counts(name, changes, message):
    model = small_model(name)
    for call in CALLS:
        with pytest.raises(ValueError, match=message):
            getattr(model, call)(four_atoms(**changes))


def test_the_search_for_neighbors_names_what_it_cannot_take():
    pos, batch, cell = four_atoms().pos, four_atoms().batch, four_atoms().cell
    graph = radius_graph(pos, batch, 5.0)
    for given in ((pos.to_sparse(), batch, 5.0), (pos, batch.to_sparse(), 5.0), (pos, batch, 5.0, cell.to_sparse())):
        with pytest.raises(TypeError, match="(pos|batch|cell): expected a dense tensor, got torch.sparse_coo"):
            radius_graph(*given)
    with pytest.raises(TypeError, match="pos: expected a dense tensor, got torch.sparse_coo"):
        edge_vectors(pos.to_sparse(), graph)
    with pytest.raises(TypeError, match="edge_index: expected a dense tensor, got torch.sparse_coo"):
        build_graph(graph.edge_index.to_sparse(), 4)
    with pytest.raises(ValueError, match="batch: expected numbers below 16777216, got 1099511627776"):
        radius_graph(pos, torch.tensor([0, 0, 0, 2**40]), 5.0)
    with pytest.raises(ValueError, match="num_nodes: expected at most 2147483647, got 1099511627776"):
        build_graph(graph.edge_index, 2**40)
    with pytest.raises(ValueError, match="pos: expected a tensor that has values, got one on the device meta"):
        radius_graph(pos.to("meta"), None, 5.0)


@pytest.mark.parametrize("name", MODELS)
def test_cutoffs_up_to_the_largest_give_numbers(name):
    largest = arguments(MODELS[name])["cutoff"].limits["high"]
    with pytest.raises(ValueError, match=f"cutoff: expected at most {largest:g}, got 1000000.0"):
        MODELS[name](cutoff=1e6)
    layers = {"num_layers", "num_blocks", "num_interactions"} & MODELS[name](cutoff=5.0).hparams.keys()
    torch.manual_seed(0)
    model = MODELS[name](cutoff=largest, hidden_channels=16, **dict.fromkeys(layers, 6))
    for parameter in model.parameters():
        if not parameter.any():  # the last layers start at 0
            parameter.data.normal_(std=0.3)
    data = four_atoms(cell=None, pbc=None)
    data.pos = data.pos.float()
    energy, forces = model.energy_and_forces(data)
    (energy.sum() + forces.sum()).backward()
    assert energy.isfinite().all() and forces.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
