"""Stress of periodic cells as a label: read, learned, evaluated."""

import re
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from commands import call, overrides
from training_runs import same_run, settings, tiny_settings

from spherenet_fast.calculators import SphereNetCalculator
from spherenet_fast.data import from_atoms, read_molecules
from spherenet_fast.training import Potential, train
from spherenet_fast.training.callbacks.logs import read_metrics
from spherenet_fast.training.config.own_data import config_of_data
from spherenet_fast.training.module import TrainingModule
from spherenet_fast.training.prepare import prepare_molecules, prepare_potential, prepare_split


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("spherenet_fast.training.run.plot_learning_curve", lambda *arguments: None)
    return tmp_path


def crystals(count=16):
    """Strained and rattled cells of copper and gold with labels of EMT, of which one has no stress."""
    draw, structures = np.random.default_rng(0), []
    for number in range(count):
        atoms = bulk("CuAu"[2 * (number % 2) :][:2], cubic=True)
        atoms.set_cell(atoms.cell @ (np.eye(3) + draw.normal(scale=0.02, size=(3, 3))), scale_atoms=True)
        atoms.rattle(0.05, seed=number)
        atoms.calc = EMT()
        results = {name: atoms.calc.get_property(name, atoms) for name in ("energy", "forces", "stress")}
        if number == 3:
            del results["stress"]
        atoms.calc = SinglePointCalculator(atoms, **results)
        structures.append(atoms)
    return structures


def tiny(**changes):
    """A config for c.extxyz, as it follows from the data, of a tiny model and a few steps."""
    changes = {"data__train": None, "data__val": 3, "data__test": 4, "training__seed": 0} | changes
    return config_of_data("c.extxyz", tiny_settings(**changes)).config


@pytest.mark.parametrize("name", ["c.extxyz", "c.traj", "c.db"])
def test_stress_is_read_with_the_sign_of_ase(name):
    structures = crystals(5)
    ase.io.write(name, structures)
    stress = read_molecules(name, dtype=torch.float64).stress
    assert stress.isnan().flatten(1).all(1).tolist() == [False, False, False, True, False]
    for number in (0, 1, 2, 4):
        # extended xyz has eight digits
        assert stress[number].numpy() == pytest.approx(structures[number].get_stress(voigt=False), abs=1e-8)


def test_names_and_units_of_the_stress():
    structures = crystals(5)
    for atoms in structures:
        if "stress" in atoms.calc.results:
            atoms.info["REF_stress"] = atoms.calc.results.pop("stress") / 0.006241509125883258  # GPa
    ase.io.write("c.extxyz", structures)
    read = dict(keys={"stress": "REF_stress"}, dtype=torch.float64)
    stated = read_molecules("c.extxyz", file_units={"stress": "GPa"}, **read).stress
    assert torch.allclose(stated, from_atoms(crystals(5), torch.float64).stress, atol=1e-8, equal_nan=True)
    bohr = read_molecules("c.extxyz", file_units={"length": "Bohr"}, **read).stress
    plain = read_molecules("c.extxyz", **read).stress
    assert bohr[0, 0, 0] / plain[0, 0, 0] == pytest.approx(0.529177210**-3, rel=1e-6)  # the digits stated here
    in_mev = from_atoms(crystals(5), torch.float64).choose(["energy"], {"energy": "meV"}, True, True)
    assert torch.allclose(in_mev.stress, 1000 * stated, atol=1e-5, equal_nan=True)
    with pytest.raises(ValueError, match="data.keys.stress: expected structures with 'virial', got none"):
        read_molecules("c.extxyz", keys={"stress": "virial"})
    with pytest.raises(ValueError, match="file_units.stress: expected one of eV/Ang\\^3, GPa, kbar, got 'eV'"):
        read_molecules("c.extxyz", file_units={"stress": "eV"})
    structures[1].info["REF_stress"] = [1.0, 2.0]
    with pytest.raises(
        ValueError, match=r"structure 1: stress_b: expected \[6\], \[9\] or \[3, 3\] numbers, got \[2\]"
    ):
        structures[1].info["stress_b"] = [1.0, 2.0]
        from_atoms(structures, keys={"stress": "stress_b"})


def test_errors_are_those_of_the_calculator():
    """In the loss they are divided by the scale, and a mirror image has the mirrored labels."""
    ase.io.write("c.extxyz", crystals())
    config = tiny(data__dtype="float64")
    assert config.loss.stress_weight == 1000
    molecules = prepare_molecules(config.data, stress=True)
    split = prepare_split(config.data, molecules)
    potential = prepare_potential(config, molecules, split).eval()
    generator = torch.Generator().manual_seed(0)
    for weight in potential.model.parameters():
        if not weight.any():  # the last layers start at 0
            weight.data.normal_(std=0.3, generator=generator)
    module, batch = TrainingModule(potential, config, 1), molecules[torch.tensor([0, 3, 5])]
    error = module._errors(batch)[2].detach() * potential.scale
    for row, number in enumerate((0, 5)):  # 3 has no label
        atoms = crystals()[number]
        label = atoms.get_stress()
        atoms.calc = SphereNetCalculator(potential)
        # float64; the file has eight decimals of the positions, and stress grows by some eV/Å^4
        assert error[row].numpy() == pytest.approx(atoms.get_stress() - label, abs=1e-6)
    mirrored = batch.mirrored(torch.tensor([True, True, True]))
    sign = torch.tensor([[1, -1, -1], [-1, 1, 1], [-1, 1, 1]])
    assert torch.equal(mirrored.stress[0], sign * batch.stress[0])


def test_it_is_learned_logged_resumed_and_evaluated():
    ase.io.write("c.extxyz", crystals())
    options = {"training__max_steps": 60, "training__val_every": 20, "loss__energy_weight": 0, "loss__forces_weight": 0}
    options |= {
        "optimizer__lr": 0.02,
        "optimizer__schedule": "constant",
        "optimizer__ema_decay": None,
        "data__train": 2,
        "training__log_every": 10,
    }
    train(tiny(**options), "whole")
    rows = [row["train_mae_stress"] for row in read_metrics("whole/metrics.csv") if "train_loss" in row]
    assert rows[-1] < 0.7 * rows[0]  # the loss has nothing else in it, and there are two cells to learn
    train(tiny(**options | {"training__max_steps": 40}), "run")
    train(tiny(**options), "run", resume=True)
    same_run(Path("whole"), Path("run"))
    code, output, _ = call("evaluate", "whole/best.ckpt", "--out", "e.extxyz", "--plot", "e.png")
    assert code == 0
    lines = [text.split() for text in output.splitlines()]
    number = next(row for row, words in enumerate(lines) if words[0] == "stress")
    line = lines[number]
    assert line[3] == "eV/Ang^3" and lines[number + 1][2] == "GPa"
    assert float(lines[number + 1][0]) == pytest.approx(160.21766 * float(line[1]), rel=1e-4)  # five digits are shown
    written = ase.io.read("e.extxyz", ":")
    known = [atoms for atoms in written if "REF_stress" in atoms.info]
    mae = np.mean([np.abs(atoms.get_stress() - atoms.info["REF_stress"]).mean() for atoms in known])
    assert float(line[1]) == pytest.approx(mae, rel=1e-3)  # the file has eight decimals, of numbers near 1e-2
    assert Potential.load("whole/best.ckpt").all_units()["stress"] == "eV/Ang^3"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data__forces": False}, "config key 'loss.stress_weight': expected 0 where data.forces is false, got more"),
        (
            {"molecule": True},
            "frame 16 of .*c.extxyz: expected a cell with a volume that repeats, as loss.stress_weight",
        ),
        ({"labels": False}, "stress: expected labels in the data, as loss.stress_weight is not 0, got none"),
    ],
)
def test_data_without_stress_is_one_line(change, message):
    structures = crystals()
    if change.pop("molecule", False):
        structures.append(molecule("H2O"))
        structures[-1].calc = SinglePointCalculator(structures[-1], energy=0.0, forces=np.zeros((3, 3)))
    if not change.pop("labels", True):
        for atoms in structures:
            atoms.calc.results.pop("stress", None)
    ase.io.write("c.extxyz", structures)
    changes = overrides(**change, loss__stress_weight=1.0)
    code, _, error = call("train", "c.extxyz", "--out", "run", *changes)
    assert code == 2 and re.match(f"error: {message}", error) and error.count("\n") == 1
    if "forces" not in str(change):
        assert config_of_data("c.extxyz", settings({"training.max_steps": 1})).config.loss.stress_weight == 0
