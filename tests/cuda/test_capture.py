"""Steps of fixed size. Here, on the CPU, they run without being recorded; test_cuda_device.py records them."""

import copy
from types import SimpleNamespace

import pytest
import torch
from graph_oracles import random_crystal
from molecules import SMALL, as_data, labeled_batch, with_outputs
from operator_cases import assert_close

from spherenet_fast.cuda_graph import Capacity, CapacityError, CapturedInference, CapturedTraining, masked_mean
from spherenet_fast.graph import radius_graph
from spherenet_fast.models import SphereNet

SIZES = [(6, 9, 1, 4), (5,), (9, 9, 9), (1, 1)]
# the same sums in float64, in matrix products of other sizes
TOLERANCE = 1e-11


BATCHES = [labeled_batch(sizes, seed) for seed, sizes in enumerate(SIZES)]
CAPACITY = Capacity.of(BATCHES, 5.0)


def named(result):
    """Energy and forces by name."""
    return dict(zip(("energy", "forces"), result, strict=True))


def small_model(**changes):
    torch.manual_seed(0)
    return with_outputs(SphereNet(**SMALL | changes)).double()


# ---- inference -------------------------------------------------------------------------------------------------------


def test_energies_and_forces_of_batches_of_any_size():
    model = small_model().eval()
    predict, predict_energy = CapturedInference(model, CAPACITY), CapturedInference(model, CAPACITY, forces=False)
    results = [(data, *predict(data), predict_energy(data)) for data in BATCHES * 2]
    for data, energy, forces, alone in results:  # later calls leave earlier results as they are
        expected = named(model.energy_and_forces(data))
        assert not energy.requires_grad and not forces.requires_grad
        assert_close({"energy": energy, "forces": forces}, expected, TOLERANCE)
        assert_close({"energy": alone}, {"energy": expected["energy"]}, TOLERANCE)


def test_one_molecule_and_dicts():
    model = small_model().eval()
    predict = CapturedInference(model, CAPACITY)
    data = {"z": BATCHES[1].z, "pos": BATCHES[1].pos}
    energy, forces = predict(data)
    assert_close(named((energy, forces)), named(model.energy_and_forces(data)), TOLERANCE)


def test_full_to_the_brim_and_empty():
    model = small_model().eval()
    data = BATCHES[0]
    predict = CapturedInference(model, Capacity.of([data], 5.0, spare=0))
    expected = named(model.energy_and_forces(data))
    empty = as_data(data.z[:0], data.pos[:0], data.batch[:0], num_graphs=2)
    for _ in range(2):
        assert_close(named(predict(data)), expected, TOLERANCE)
        energy, forces = predict(empty)
        assert energy.shape == (2, 1) and (energy == 0).all() and forces.shape == (0, 3)


@pytest.mark.parametrize("given", [False, True], ids=["found", "given"])
def test_cells(given):
    """Neighbors of periodic structures are found outside of the step, or given."""
    crystals = [random_crystal(num_atoms, seed=num_atoms, scale=4.0) for num_atoms in (2, 5, 3)]
    model = small_model(cutoff=4.0).eval()
    batches = []
    for chosen in (crystals, crystals[1:2], crystals[:2]):
        sizes = torch.tensor([len(pos) for pos, _ in chosen])
        pos, cell = torch.cat([pos for pos, _ in chosen]), torch.stack([cell for _, cell in chosen])
        batch = torch.repeat_interleave(torch.arange(len(chosen)), sizes)
        pbc = torch.tensor([[True, True, False]]).expand(len(chosen), 3)
        batches.append(as_data(torch.full((len(pos),), 6), pos, batch, cell=cell, pbc=pbc))
    predict = CapturedInference(model, Capacity.of(batches, 4.0))
    for data in batches:
        graph = radius_graph(data.pos, data.batch, 4.0, data.cell, data.pbc)
        found = predict(data, graph if given else None)
        assert_close(named(found), named(model.energy_and_forces(data)), TOLERANCE)


def test_cells_in_which_nothing_repeats():
    model = small_model(cutoff=4.0).eval()
    pos, cell = random_crystal(4, seed=1, scale=4.0)
    crystal = as_data(torch.full((4,), 6), pos, None, cell=cell, pbc=torch.tensor([True, True, True]))
    open_one = as_data(crystal.z, pos, None, cell=cell, pbc=torch.tensor([False, False, False]))
    predict = CapturedInference(model, Capacity.of([crystal], 4.0))
    for data in (crystal, open_one):
        assert_close(named(predict(data)), named(model.energy_and_forces(data)), TOLERANCE)


def test_fewest_neighbors():
    model = small_model(max_num_neighbors=3).eval()
    predict = CapturedInference(model, CAPACITY)
    for data in BATCHES[:2]:
        assert_close(named(predict(data)), named(model.energy_and_forces(data)), TOLERANCE)


# ---- training --------------------------------------------------------------------------------------------------------


def masked_loss(energy, forces, batch):
    loss = masked_mean((energy - batch.y).square(), batch.graph_mask)
    return loss if forces is None else loss + masked_mean((forces - batch.forces).abs(), batch.atom_mask)


def plain_loss(energy, forces, data):
    loss = (energy - data.y).square().mean()
    return loss if forces is None else loss + (forces - data.forces).abs().mean()


@pytest.mark.parametrize("forces", [True, False])
def test_training_is_that_of_the_batches_alone(forces):
    model = small_model().train()
    twin = copy.deepcopy(model)
    optimizers = [torch.optim.AdamW(m.parameters(), lr=1e-3) for m in (model, twin)]
    step = CapturedTraining(model, masked_loss, optimizers[0], CAPACITY, forces=forces)
    for data in BATCHES * 2:
        loss = step(data)
        optimizers[1].zero_grad()
        expected = plain_loss(*(twin.energy_and_forces(data) if forces else (twin(data), None)), data)
        expected.backward()
        optimizers[1].step()
        assert_close({"loss": loss}, {"loss": expected.detach()}, 1e-8)
    weights, expected = dict(model.named_parameters()), dict(twin.named_parameters())
    # AdamW divides by the size of a gradient: of one that is rounding noise it makes a step of any sign
    differences = torch.cat([(weights[name] - expected[name]).detach().flatten() for name in weights]).abs()
    assert differences.quantile(0.99) < 1e-9 and differences.max() < 2e-2


def test_gradients_of_a_step():
    model = small_model().train()
    twin = copy.deepcopy(model)
    step = CapturedTraining(model, masked_loss, torch.optim.SGD(model.parameters(), lr=0.0), CAPACITY)
    for data in BATCHES:
        twin.zero_grad()
        step(data)
        plain_loss(*twin.energy_and_forces(data), data).backward()
        gradients = [{name: p.grad for name, p in m.named_parameters()} for m in (model, twin)]
        assert_close(*gradients, TOLERANCE)


# ---- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", Capacity._fields)
def test_too_large_a_batch_names_the_capacity_and_changes_nothing(name):
    exact = Capacity.of(BATCHES[:1], 5.0, spare=0)
    small = exact._replace(**{name: getattr(exact, name) - 1})
    message = f"{name}: expected at most {getattr(small, name)}, the capacity, got {getattr(exact, name)}"
    predict, model = CapturedInference(small_model().eval(), small), small_model().train()
    with pytest.raises(CapacityError, match=message):
        predict(BATCHES[0])
    predict(BATCHES[1])  # and it works again
    before = copy.deepcopy(model.state_dict())
    step = CapturedTraining(model, masked_loss, torch.optim.SGD(model.parameters(), lr=1.0), small)
    with pytest.raises(CapacityError, match=message):
        step(BATCHES[0])
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    step(BATCHES[1])
    assert not all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    "change, error, message",
    [
        (dict(z=torch.tensor([1, 200, 1, 1, 1])), ValueError, "data.z: expected atomic numbers 1 to 94, got 1 to 200"),
        (dict(z=torch.tensor([1, -3, 1, 1, 1])), ValueError, "data.z: expected atomic numbers 1 to 94, got -3 to 1"),
        (dict(pos=torch.full((5, 3), torch.nan).double()), ValueError, "pos: expected finite"),
        (dict(pos=torch.zeros(5, 3).double()), ValueError, "pos: expected atoms at least .* atoms 0 and 1"),
        (
            dict(batch=torch.tensor([0, 1, 0, 1, 1]), num_graphs=2, y=torch.zeros(2, 1)),
            ValueError,
            "batch: .*ascending",
        ),
        (dict(batch=torch.tensor([0, 0, 0, 0, 7])), ValueError, "data.batch: expected .* 0 to 0, got 0 to 7"),
        (dict(batch=torch.tensor([0, 0, 0, 0, 2])), ValueError, "data.batch: expected .* 0 to 0, got 0 to 2"),
        (dict(pos=torch.zeros(5, 3)), TypeError, "data.pos: expected torch.float64, .* got torch.float32"),
        (dict(cell=torch.eye(3).double()), ValueError, r"data: expected .* as in the first batch, got .*cell"),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_wrong_data_gets_the_errors_of_the_model(change, error, message, training):
    model = small_model().train(training)
    if training:
        step = CapturedTraining(model, masked_loss, torch.optim.SGD(model.parameters(), lr=1.0), CAPACITY)
    else:
        step = CapturedInference(model, CAPACITY)
    step(BATCHES[1])
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=message):
        step(SimpleNamespace(**vars(BATCHES[1]) | change))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    step(BATCHES[1])


def test_wrong_use():
    model = small_model()
    with pytest.raises(ValueError, match="model: expected one in evaluation mode"):
        CapturedInference(model.train(), CAPACITY)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with pytest.raises(ValueError, match="model: expected one in training mode"):
        CapturedTraining(model.eval(), masked_loss, optimizer, CAPACITY)
    for other in (small_model(kernels=False).eval(), torch.nn.Linear(2, 2)):
        with pytest.raises(ValueError, match="model: expected a GraphNetwork3D with its fused kernels, got"):
            CapturedInference(other, CAPACITY)
    step = CapturedTraining(model.train(), masked_loss, optimizer, CAPACITY)
    with pytest.raises(TypeError, match="data.y: expected a tensor, got NoneType"):
        step(as_data(BATCHES[1].z, BATCHES[1].pos, None, forces=BATCHES[1].forces))
    step(BATCHES[1])
    with pytest.raises(ValueError, match=r"data.forces: expected shape \[5, 3\], got \[4, 3\]"):
        step(SimpleNamespace(**vars(BATCHES[1]) | dict(forces=BATCHES[1].forces[1:])))
    with pytest.raises(ValueError, match="graph: expected None as in the first call, got one"):
        step(BATCHES[1], radius_graph(BATCHES[1].pos, None, 5.0))
    predict = CapturedInference(model.eval(), CAPACITY)
    with pytest.raises(ValueError, match="graph: expected one of 5 atoms, as in data, got 20"):
        predict(BATCHES[1], radius_graph(BATCHES[0].pos, BATCHES[0].batch, 5.0))


def test_masked_mean():
    values = torch.tensor([[1.0, 2], [3, 6], [0, 0]])
    mask = torch.tensor([True, True, False])
    assert masked_mean(values, mask) == 3 and masked_mean(values[:, 0], mask) == 2
