"""A committee from one command: trained, resumed, compared, and used."""

import json
import shutil

import ase.io
import numpy as np
import pytest
import torch
from ase.build import molecule
from commands import call, overrides
from training_runs import before_step, same_run, tiny_config

from spherenet_fast.calculators import Committee
from spherenet_fast.data import conversion
from spherenet_fast.training import Potential, train
from spherenet_fast.training.evaluation import evaluation_data
from spherenet_fast.training.seeds import train_seeds

STEPS = {"training__max_steps": 4, "training__val_every": 2, "training__seed": 7}


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Drawing the learning curve takes longer than these runs."""
    monkeypatch.setattr("spherenet_fast.training.run.plot_learning_curve", lambda *arguments: None)


@pytest.fixture(scope="module")
def committee(tmp_path_factory):
    out = tmp_path_factory.mktemp("seeds") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spherenet_fast.training.run.plot_learning_curve", lambda *arguments: None)
        code, output, _ = call("train", "ethanol", "--seeds", "2", "--out", out, *overrides(**STEPS))
    assert code == 0
    return out, output


def test_every_model_is_that_of_its_seed(committee, tmp_path):
    out, _ = committee
    train(tiny_config(**STEPS | {"training__seed": 8}), tmp_path / "alone")
    same_run(out / "seed1", tmp_path / "alone")
    assert sorted(path.name for path in out.iterdir()) == ["results.json", "seed0", "seed1"]
    assert (out / "seed0/split.npz").read_bytes() == (out / "seed1/split.npz").read_bytes()


def test_the_table_has_all_models_their_mean_and_the_committee(committee):
    out, output = committee
    results = json.loads((out / "results.json").read_text())
    each = [json.loads((out / f"seed{number}/results.json").read_text())["mae"] for number in range(2)]
    for name in ("energy", "forces"):
        assert results["mean"][name] == pytest.approx((each[0][name] + each[1][name]) / 2, rel=1e-12)
        assert results["spread"][name] == pytest.approx(abs(each[0][name] - each[1][name]) / 2, rel=1e-9)
    potentials = [Potential.load(out / f"seed{number}/best.ckpt") for number in range(2)]
    molecules, test = evaluation_data(potentials[0], run=out / "seed0")
    batch = molecules[test]
    mean = torch.stack([potential(batch)[:, 0] for potential in potentials]).mean(0)
    # float32 sums in batches of other sizes
    assert results["committee"]["mae"]["energy"] == pytest.approx((mean - batch.y[:, 0]).abs().mean().item(), rel=1e-4)
    lines = output[output.index("MAE on the test set") :].splitlines()
    assert lines[1].split() == ["energy", "(kcal/mol)", "forces", "(kcal/mol/Ang)"]
    assert [line.split()[0] for line in lines[2:7]] == ["seed0", "seed1", "mean", "standard", "committee"]
    assert float(lines[4].split()[1]) == pytest.approx(results["mean"]["energy"], rel=1e-4)


def test_an_interrupted_committee_goes_on(committee, tmp_path, monkeypatch):
    class PowerCut(Exception):
        pass

    def cut():
        if (tmp_path / "run" / "seed1").is_dir():
            raise PowerCut

    config = tiny_config(**STEPS)
    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        before_step(patch, 3, cut)
        train_seeds(config, 2, tmp_path / "run")
    train_seeds(config, 2, tmp_path / "run", resume=True)
    for name in ("seed0", "seed1"):
        same_run(committee[0] / name, tmp_path / "run" / name)


def test_a_folder_in_use_and_none_to_resume(committee, tmp_path):
    code, _, error = call("train", "ethanol", "--seeds", "2", "--out", committee[0], *overrides(**STEPS))
    assert code == 2 and "--out: expected a new folder" in error
    code, _, error = call("train", "ethanol", "--seeds", "2", "--out", tmp_path / "none", "--resume", *overrides())
    assert code == 2 and "--resume: expected the folder of a run, there is no" in error
    assert not (tmp_path / "none").exists()


def test_predictions_are_the_mean_with_the_variance(committee, tmp_path):
    out, _ = committee
    structures = [molecule("CH3CH2OH"), molecule("CH4")]
    ase.io.write(tmp_path / "s.extxyz", structures)
    code, output, _ = call("predict", out, tmp_path / "s.extxyz", "-o", tmp_path / "o.extxyz")
    assert code == 0 and "spread over 2 models: energy " in output
    single = [out / f"seed{number}/best.ckpt" for number in range(2)]
    assert call("predict", *single, tmp_path / "s.extxyz", "-o", tmp_path / "p.extxyz")[0] == 0
    assert (tmp_path / "o.extxyz").read_bytes() == (tmp_path / "p.extxyz").read_bytes()
    found = ase.io.read(tmp_path / "o.extxyz", ":")
    factor = conversion("kcal/mol", "eV")
    for atoms, written in zip(structures, found, strict=True):
        atoms.calc = Committee(out)
        # the file has eight decimals, and float32 sums of a batch of two differ in the last digits
        assert written.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), rel=1e-6)
        assert written.info["energy_var"] == pytest.approx(atoms.calc.results["energy_var"], rel=1e-2, abs=1e-9)
        assert written.get_forces() == pytest.approx(atoms.get_forces(), abs=1e-5)
        assert written.arrays["forces_var"].shape == (len(atoms), 3)
    spread = np.sqrt([atoms.info["energy_var"] for atoms in found])
    assert f"energy {1000 * spread.mean():.3g} meV" in output and factor < 1
    assert call("predict", out, tmp_path / "s.extxyz", "-o", tmp_path / "q.extxyz", "--no-forces")[0] == 0
    assert "forces" not in ase.io.read(tmp_path / "q.extxyz", 0).calc.results


def test_folders_and_names_that_do_not_fit_a_committee(committee, tmp_path):
    out, _ = committee
    ase.io.write(tmp_path / "s.extxyz", molecule("CH4"))
    given = [tmp_path / "s.extxyz", "-o", tmp_path / "o.extxyz"]
    code, _, error = call("predict", out / "seed0", *given)
    assert code == 2 and "seed0: expected the file of a checkpoint, or a folder with seed0/best.ckpt" in error
    code, _, error = call("predict", out, *given, "--keys", "energy=NN_energy")
    assert code == 2 and "--keys: expected none with several checkpoints, got energy=NN_energy" in error
    shutil.copytree(out, tmp_path / "c")
    (tmp_path / "c/seed1/best.ckpt").write_bytes(b"")
    code, _, error = call("predict", tmp_path / "c", *given)
    assert code == 2 and "seed1/best.ckpt: expected a checkpoint of spherenet_fast; it is empty" in error
    assert not (tmp_path / "o.extxyz").exists()
