"""References, schedule, losses, averages, error sums and checkpoints."""

import math
import os
import re
import warnings
from dataclasses import replace

import pytest
import torch
from training_runs import TINY_MODEL, random_molecules, tiny_config, untrained

from spherenet_fast.data import read_molecules
from spherenet_fast.data.targets import is_extensive
from spherenet_fast.graph import radius_graph
from spherenet_fast.models import SphereNet
from spherenet_fast.training import Potential
from spherenet_fast.training.callbacks import threads
from spherenet_fast.training.config import LossConfig, OptimizerConfig
from spherenet_fast.training.distributed.processes import Processes
from spherenet_fast.training.metrics import ErrorSum, spreads, standardized
from spherenet_fast.training.module import TrainingModule
from spherenet_fast.training.normalization import Normalization, fit_elements, fit_normalization
from spherenet_fast.training.optimization.ema import WeightAverage
from spherenet_fast.training.optimization.losses import error_loss, total_loss
from spherenet_fast.training.optimization.schedule import learning_rate, progress, shortcoming
from spherenet_fast.training.prepare import count_edges, prepare_molecules

# References and scale


def test_elements_recover_a_linear_composition():
    molecules = random_molecules(40)
    energies = torch.zeros(95, dtype=torch.float64)
    energies[[1, 6, 7, 8]] = torch.tensor([-13.6, -1029.0, -1485.0, -2042.0], dtype=torch.float64)
    counts = molecules.composition(torch.arange(40))
    assert torch.equal(counts.sum(1).long(), molecules.n_atoms)
    # A well-conditioned 40 x 4 problem in float64: rounding of 1e-16 times energies of 1e4.
    assert torch.allclose(fit_elements(counts, counts @ energies), energies, atol=1e-9)


def test_a_single_molecule_shares_its_mean_among_its_elements():
    counts = torch.zeros(5, 95, dtype=torch.float64)
    counts[:, 6], counts[:, 1], counts[:, 8] = 2, 6, 1
    y = torch.tensor([-97000.0, -97001, -97002, -97003, -97004], dtype=torch.float64)
    elements = fit_elements(counts, y)
    assert torch.allclose(counts @ elements, y.mean().expand(5))
    assert torch.allclose(elements[[1, 6, 8]], elements[8] * torch.tensor([6.0, 2, 1], dtype=torch.float64))
    assert int((elements != 0).sum()) == 3


def test_normalization_suits_the_target():
    molecules = random_molecules(30)
    train_part = torch.arange(20)
    energy = fit_normalization(molecules.choose(["energy"]), train_part)
    assert energy.elements.abs().sum() > 0 and energy.shift.item() == 0
    gap = fit_normalization(molecules.choose(["gap"]), train_part)
    labels = molecules.y[:20, 1]
    assert gap.elements.abs().sum() == 0
    assert gap.shift.item() == pytest.approx(labels.mean().item())
    assert gap.scale.item() == pytest.approx(labels.std(correction=0).item())
    chosen = molecules.choose(["energy"], forces=True)
    forces = chosen.forces[chosen.atoms_of(train_part)[0]]
    scale = fit_normalization(chosen, train_part).scale.item()
    assert scale == pytest.approx(forces.double().square().mean().sqrt().item())
    plain = fit_normalization(chosen, train_part, "none", "none")
    assert plain.elements.abs().sum() == 0 and plain.shift.item() == 0 and plain.scale.item() == 1


def test_normalization_sees_training_molecules_only():
    molecules = random_molecules(30).choose(["energy"])
    before = fit_normalization(molecules, torch.arange(20))
    molecules.y[20:] += 1000
    assert all(map(torch.equal, before, fit_normalization(molecules, torch.arange(20))))


def test_targets_with_numbers_for_elements_are_those_that_elements_explain():
    """A least-squares fit of numbers of atoms leaves at most 0.54 of them (Cv), and 0.76 of the others (lumo)."""
    molecules = read_molecules("qm9")
    counts = molecules.composition(torch.arange(len(molecules)))
    for name, y in zip(molecules.names, molecules.y.T, strict=True):
        left = (y - counts @ fit_elements(counts, y)).std() / y.std()
        assert is_extensive(name) == (left < 0.65).item(), name


def test_identical_labels_have_scale_one():
    molecules = random_molecules(10)
    molecules.y[:] = 3.0
    assert fit_normalization(molecules.choose(["gap"]), torch.arange(10)).scale.item() == 1


# Schedule, losses, averages, errors


def test_learning_rate():
    options = OptimizerConfig(lr=2.0, warmup_steps=4, schedule="cosine")
    assert [learning_rate(options, step, 0.0) for step in range(5)] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert learning_rate(options, 100, 0.5) == pytest.approx(1.0)
    assert learning_rate(options, 100, 1.0) == 0
    options = OptimizerConfig(lr=2.0, schedule="step", step_size=10, step_factor=0.5)
    assert [learning_rate(options, step, 0.9) for step in (0, 9, 10, 29)] == [2, 2, 1, 0.5]
    assert learning_rate(OptimizerConfig(lr=2.0, schedule="constant"), 999, 1.0) == 2


def test_warm_up_takes_at_most_a_tenth_of_the_time():
    options = OptimizerConfig(lr=2.0, warmup_steps=200, schedule="constant")
    steps_alone = [learning_rate(options, step, step / 100) for step in range(20)]
    assert steps_alone == [2.0 * (step + 1) / 200 for step in range(20)]
    # On a machine that makes 20 steps in the whole time, the rate is full from the third one on.
    slow = [learning_rate(options, step, step / 20, step / 20) for step in range(20)]
    assert slow == [0.01, 1.0, *[2.0] * 18]
    # On one that makes many, the steps alone decide.
    assert learning_rate(options, 99, 0.01, 0.01) == 1.0


@pytest.mark.parametrize(
    ("limits", "steps", "minutes", "expected"),
    [
        ({"max_steps": 4000}, 4000, 9.0, None),
        ({"max_time": 4.0}, 2540, 4.0, None),
        ({"max_time": 4.0}, 22, 4.1, "after 22 steps, too few to learn much: raise training.max_time .4 min., or"),
        ({"max_time": 4.0, "max_steps": 250}, 250, 1.0, "after 250 steps, too few to learn much: give it more steps"),
        ({"max_time": 4.0, "max_steps": 150}, 150, 0.1, "after 150 steps, within its warm-up of 200 steps: give it"),
        ({"max_epochs": 1}, 1, 1.0, "after 1 step, within its warm-up of 200 steps: give it more steps, or lower"),
    ],
)
def test_a_training_too_short_to_learn_much_is_said(limits, steps, minutes, expected):
    config = tiny_config(optimizer__warmup_steps=200)
    config.training = replace(config.training, **{"max_steps": None, "max_epochs": None, "max_time": None} | limits)
    found = shortcoming(config, steps, minutes)
    assert found == expected if expected is None else re.match(f"training ended {expected}", found)


def test_progress_is_the_tighter_limit():
    assert progress(30, 100, 0.0, None) == 0.3
    assert progress(30, 100, 8.0, 10.0) == 0.8
    assert progress(90, 100, 1.0, 10.0) == 0.9
    assert progress(10**9, None, 5.0, 10.0) == 0.5
    assert progress(200, 100, 0.0, None) == 1


def test_losses():
    error = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 0.5]], dtype=torch.float64)
    assert error_loss("l1", error).item() == pytest.approx(7.5 / 6)
    assert error_loss("mse", error).item() == pytest.approx(25.25 / 6)
    assert error_loss("huber", error).item() == pytest.approx((2.5 + 3.5 + 0.125) / 6)
    # The square root is softened by 1e-12 inside, so a length of 0.5 changes by 1e-12.
    assert error_loss("norm", error).item() == pytest.approx(2.75, abs=1e-11)
    zero = torch.zeros(2, 3, requires_grad=True)
    error_loss("norm", zero).backward()
    assert torch.equal(zero.grad, torch.zeros(2, 3))


def test_each_part_of_the_loss_has_its_own_kind_and_weight():
    config = LossConfig(energy="l1", forces="mse", energy_weight=2.0, forces_weight=3.0)
    energy, forces = torch.tensor([[1.0], [-3.0]]), torch.tensor([[2.0, 0.0, 4.0]])
    assert total_loss(config, energy, None).item() == 2 * (1 + 3) / 2
    assert total_loss(config, energy, forces).item() == pytest.approx(2 * (1 + 3) / 2 + 3 * (4 + 16) / 3, rel=1e-6)


def test_the_loss_of_a_validation_is_the_mean_over_its_molecules():
    """However they are shared out among batches, of which the last is a smaller one."""
    potential, molecules, split = untrained()
    module = TrainingModule(potential, tiny_config(), 1)
    found = []
    for sizes in ((4,), (3, 1)):
        for part in split.test.split(sizes):
            module.validation_step(molecules[part], 0)
        found.append(module.take_errors("val")["val_loss"])
    assert found[1] == pytest.approx(found[0], rel=1e-12)  # sums of a few float64 numbers


def test_a_step_sees_mirror_images_of_half_the_molecules(monkeypatch):
    potential, molecules, _ = untrained()
    module = TrainingModule(potential, tiny_config(training__augment_reflections=True), 1)
    batch, seen = molecules[:40], []
    plain = module._errors
    monkeypatch.setattr(module, "_errors", lambda batch: (seen.append(batch), plain(batch))[1])
    for step in (0, 1, 0):
        monkeypatch.setattr(TrainingModule, "global_step", step)
        module.training_step(batch, 0)
    images = [(found.pos[:, 0] == -batch.pos[:, 0]).reshape(40, -1).all(1) for found in seen]
    assert all(10 <= int(image.sum()) <= 30 for image in images)  # 20 +- 3.2, drawn with fixed seeds
    assert not torch.equal(images[0], images[1]) and torch.equal(images[0], images[2])  # as a resumed run draws them
    module.config.training.augment_reflections = False
    module.training_step(batch, 0)
    assert torch.equal(seen[-1].pos, batch.pos)


def test_average_follows_its_formula_and_swaps_back():
    layer = torch.nn.Linear(3, 2)
    average = WeightAverage(layer.named_parameters(), decay=0.5)
    expected = layer.weight.detach().clone()
    for step in range(1, 20):
        with torch.no_grad():
            layer.weight += 1
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * layer.weight.detach()
    # Nineteen roundings of numbers near 20 in float32.
    assert torch.allclose(average.values["weight"], expected, rtol=1e-5)
    present = layer.weight.detach().clone()
    average.swap()
    assert torch.allclose(layer.weight, expected, rtol=1e-5)
    average.swap()
    assert torch.equal(layer.weight, present)


def test_error_sums_are_the_means_over_everything():
    draw = torch.Generator().manual_seed(0)
    errors, forces = torch.randn(7, 1, generator=draw), torch.randn(20, 3, generator=draw)
    total = ErrorSum(["energy"])
    total.add(errors[:3], forces[:5])
    total.add(errors[3:], forces[5:])
    mae, rmse, within = total.means(torch.tensor([2.0], dtype=torch.float64))
    assert mae["energy"] == pytest.approx(2 * errors.abs().mean().item(), rel=1e-6)
    assert mae["forces"] == pytest.approx(2 * forces.abs().mean().item(), rel=1e-6)
    assert rmse["forces"] == pytest.approx(2 * forces.square().mean().sqrt().item(), rel=1e-6)
    total.clear()
    assert within == {} and total.means() == ({}, {}, {})


def test_standardized_errors_of_qm9():
    config = tiny_config("qm9", data__targets="[U0,gap]")
    molecules = prepare_molecules(config.data)
    assert molecules.units == ("meV", "meV")
    spread = spreads(molecules, torch.arange(len(molecules)))
    # Of all of QM9: atomization energy 10.3 eV, gap 1.28 eV; these 1,000 molecules have 60 percent of the small ones.
    assert 9_000 < spread["U0"] < 12_500 and 1_150 < spread["gap"] < 1_450
    ratio, log_ratio = standardized({"U0": spread["U0"] / 10, "gap": spread["gap"] / 1000}, spread)
    assert ratio == pytest.approx((0.1 + 0.001) / 2) and log_ratio == pytest.approx(math.log(0.01))


# Potentials and checkpoints


def test_a_potential_has_a_target_for_each_output():
    potential, _, _ = untrained()
    normalization = Normalization(potential.atomic_energies, potential.shift, potential.scale)
    model = SphereNet(**TINY_MODEL, out_channels=3)
    with pytest.raises(ValueError, match=r"model: expected as many outputs as targets, 1 \(energy\), got 3"):
        Potential(model, normalization, potential.names, potential.units)


def test_potential_is_atomic_energies_plus_scaled_network():
    potential, molecules, split = untrained()
    batch = molecules[split.train]
    energy, forces = potential.energy_and_forces(batch)
    assert energy.dtype == torch.float64 and energy.shape == (9, 1) and forces.shape == (81, 3)
    network, slope = potential.model.energy_and_forces(batch)
    counts = molecules.composition(split.train)
    assert torch.allclose(energy, counts @ potential.atomic_energies.T + potential.scale * network)
    assert torch.allclose(forces, potential.scale * slope)
    assert torch.allclose(potential(batch), energy)
    single = molecules[0]
    single.batch = single.num_graphs = None
    assert torch.allclose(potential(single), potential(molecules[0]))


def test_a_state_dict_of_earlier_versions_loads():
    potential, other = untrained()[0], untrained()[0]
    state = potential.state_dict()
    state["references"] = state.pop("atomic_energies")
    other.atomic_energies.zero_()
    other.load_state_dict(state)
    with pytest.warns(DeprecationWarning, match="Potential.references is deprecated: use atomic_energies"):
        assert other.references is other.atomic_energies
    assert other.atomic_energies.any() and torch.equal(other.atomic_energies, potential.atomic_energies)


def test_potential_survives_its_file(tmp_path):
    potential, molecules, split = untrained()
    potential.save(tmp_path / "p.pt")
    again = Potential.load(tmp_path / "p.pt")
    assert again.units == ("kcal/mol",) and again.forces and again.elements == (1, 6, 8)
    assert again.config == potential.config
    for one, two in zip(
        potential.energy_and_forces(molecules[:3]), again.energy_and_forces(molecules[:3]), strict=True
    ):
        assert torch.equal(one, two)
    assert os.listdir(tmp_path) == ["p.pt"]


def test_wrong_checkpoints(tmp_path):
    path = tmp_path / "p.pt"
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        Potential.load(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="p.pt: expected a checkpoint of spherenet_fast; it is empty"):
        Potential.load(path)
    potential = untrained()[0]
    potential.save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match="p.pt: expected a checkpoint of spherenet_fast; it is empty, truncated"):
        Potential.load(path)
    torch.save({"weights": {}}, path)
    with pytest.raises(ValueError, match="p.pt: expected a checkpoint of spherenet_fast, got 'another file'"):
        Potential.load(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript, of which exported models are
        torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), path)
    with warnings.catch_warnings(), pytest.raises(ValueError, match="p.pt: expected a checkpoint of spherenet_fast"):
        warnings.simplefilter("error")  # the error is all that there is to say
        Potential.load(path)
    torch.save([1], path)
    with pytest.raises(ValueError, match="got a list"):
        Potential.load(path)
    state = potential.state()
    torch.save(state | {"hparams": state["hparams"] | {"hidden_channels": 16}}, path)
    with pytest.raises(ValueError, match="does not fit this version of the models"):
        Potential.load(path)


def test_elements_outside_the_training_set_are_refused():
    potential = untrained()[0]
    potential.check_elements(torch.tensor([1, 6, 8]))
    with pytest.raises(ValueError, match=r"elements of the training set \(H, C, O\), got N, Si"):
        potential.check_elements(torch.tensor([1, 14, 7]))


@pytest.mark.parametrize("busy", [False, True])
def test_one_thread_where_several_are_slower(monkeypatch, set_threads, busy):
    """Steps of 0.3 s with one thread, and of 0.2 or, on a busy machine, 1 s with two."""
    now = 0.0
    monkeypatch.setattr(threads.time, "perf_counter", lambda: now)
    set_threads(2)
    choice, taken = threads.FasterThreads(2), []
    for step in range(threads.PERIOD + 50):
        choice.on_train_batch_start(None, None, None, step)
        taken.append(torch.get_num_threads())
        slow = busy and step < threads.PERIOD  # the other program ends
        now += 0.3 if taken[-1] == 1 else 1.0 if slow else 0.2
        choice.on_train_batch_end(None, None, None, None, step)
    trial = [2] * threads.TRIAL + [1] * threads.TRIAL
    expected = [2, *trial, *[1 if busy else 2] * threads.PERIOD, *trial]
    assert taken == expected + [2] * (len(taken) - len(expected))
    choice.on_train_end(None, None)
    assert torch.get_num_threads() == 2


@pytest.mark.filterwarnings("ignore:max_num_neighbors")
@pytest.mark.parametrize("neighbors", [None, 2])
def test_edges_are_those_that_the_model_sees(neighbors):
    molecules, indices = random_molecules(9, periodic=True), torch.tensor([8, 0, 3, 5])
    model = SphereNet(**TINY_MODEL, max_num_neighbors=neighbors)
    parts = []
    for number in indices.tolist():
        batch = molecules[[number]]
        graph = radius_graph(batch.pos, None, model.cutoff, batch.cell, batch.pbc, neighbors)
        parts.append(graph.edge_index.shape[1])
    assert count_edges(model, molecules, indices, Processes()).tolist() == parts
    assert len(set(parts)) > 1
