"""Training that begins with the weights of a checkpoint: `training.init_from`."""

import ase.io
import pytest
import torch
from commands import waters
from training_runs import TINY_MODEL, settings, tiny_config, tiny_settings, untrained

from spherenet_fast.data import conversion
from spherenet_fast.training import Potential, train
from spherenet_fast.training.config.own_data import config_of_data
from spherenet_fast.training.prepare import prepare_molecules, prepare_potential, prepare_split


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Drawing the learning curve takes longer than these runs."""
    monkeypatch.setattr("spherenet_fast.training.run.plot_learning_curve", lambda *arguments: None)


@pytest.fixture
def start(tmp_path, monkeypatch):
    """The checkpoint of a potential of ethanol with random numbers, and that potential."""
    monkeypatch.chdir(tmp_path)
    potential = untrained()[0]
    potential.save(tmp_path / "start.ckpt")
    return tmp_path / "start.ckpt", potential


def prepared(config):
    molecules = prepare_molecules(config.data)
    split = prepare_split(config.data, molecules)
    return prepare_potential(config, molecules, split), molecules, split


def test_on_the_same_data_it_begins_where_the_checkpoint_is_best(start):
    """The same forces; energies are moved by what the checkpoint is off on average."""
    path, before = start
    potential, molecules, split = prepared(tiny_config(data__dtype="float64", training__init_from=path))
    batch = molecules[split.train]
    energy, forces = potential.energy_and_forces(batch)
    old_energy, old_forces = before.energy_and_forces(batch)
    assert torch.equal(forces, old_forces)
    moved = energy - old_energy
    # float64 of energies of 1e5 kcal/mol
    assert moved.std() < 1e-8 and (energy - batch.y).mean().item() == pytest.approx(0, abs=1e-8)
    assert abs(moved.mean()) > 1e-3  # or else nothing is tested


def test_other_elements_and_another_unit(start):
    path, before = start
    structures = waters(12)
    for number, atoms in enumerate(structures):
        atoms.symbols[1] = "HF"[number % 2]
    ase.io.write("w.extxyz", structures)
    config = config_of_data("w.extxyz", settings({"data.dtype": "float64", "training.init_from": path})).config
    assert {name: getattr(config.model, name) for name in TINY_MODEL} == TINY_MODEL  # the model is the checkpoint's
    potential, molecules, split = prepared(config)
    assert potential.units == ("eV",) and potential.elements == (1, 6, 8, 9)
    assert all(map(torch.equal, potential.model.parameters(), before.model.parameters()))
    assert potential.scale.item() == pytest.approx(before.scale.item() * conversion("kcal/mol", "eV"), rel=1e-12)
    assert potential.atomic_energies[0, 9] != 0
    carbon = potential.atomic_energies[0, 6] / conversion("kcal/mol", "eV")
    assert carbon.item() == pytest.approx(before.atomic_energies[0, 6].item(), rel=1e-12)  # not in the data: kept
    train_batch = molecules[split.train]
    error = potential(train_batch) - train_batch.y
    assert error.mean().item() == pytest.approx(0, abs=1e-7)  # float64 of energies of 1e4 eV


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__hidden_channels": 16}, "expected model.hidden_channels: 8 as in .*start.ckpt, got 16"),
        ({"model__torsion": "smooth"}, "expected model.torsion: smooth_even as in .*start.ckpt, got smooth"),
        (
            {"data__source": "qm9", "data__targets": "[gap]", "data__forces": False},
            "expected data.targets: energy as in .*start.ckpt, got gap",
        ),
    ],
)
def test_a_checkpoint_of_another_kind_is_one_line(start, tmp_path, changes, message):
    config = tiny_config(training__init_from=start[0], **changes)
    with pytest.raises(ValueError, match=f"^training.init_from: {message}$") as error:
        train(config, tmp_path / "run")
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


def test_another_model_and_an_unknown_unit(start, tmp_path):
    path, potential = start
    overrides = [text for text in tiny_settings(training__init_from=path) if not text.startswith("model.")]
    from spherenet_fast.training import load_config

    with pytest.raises(ValueError, match="expected model.name: SphereNet as in .*, got SchNet$"):
        train(load_config("ethanol", [*overrides, "model.name=SchNet"]), tmp_path / "run")
    potential.units = (None,)
    potential.save(path)
    with pytest.raises(ValueError, match="expected the unit of energy: unknown as in .*, got kcal/mol$"):
        train(tiny_config(training__init_from=path), tmp_path / "run")
    with pytest.raises(FileNotFoundError, match="none.ckpt: no such checkpoint"):
        train(tiny_config(training__init_from=tmp_path / "none.ckpt"), tmp_path / "run")


def test_a_resumed_fine_tuning_needs_its_first_checkpoint_no_more(start, tmp_path):
    from training_runs import same_run

    path, before = start
    options = {"training__init_from": path, "data__dtype": "float64", "optimizer__schedule": "constant"}
    train(tiny_config(training__max_steps=10, **options), tmp_path / "whole")
    train(tiny_config(training__max_steps=5, **options), tmp_path / "run")
    path.unlink()
    train(tiny_config(training__max_steps=10, **options), tmp_path / "run", resume=True)
    same_run(tmp_path / "whole", tmp_path / "run")
    trained = Potential.load(tmp_path / "run" / "best.ckpt")
    assert torch.equal(trained.scale, before.scale) and trained.elements == before.elements
