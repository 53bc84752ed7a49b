"""Whole runs: what they leave, interrupted, resumed, wrong."""

import json
import math
import os
import re
import signal
from dataclasses import replace

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT
from lightning.pytorch.utilities import rank_zero_only
from training_runs import before_step, same_run, tiny_config, untrained

from spherenet_fast.data import conversion, random_split
from spherenet_fast.training import Potential, train
from spherenet_fast.training.callbacks.logs import read_metrics
from spherenet_fast.training.metrics import evaluate
from spherenet_fast.training.module import TrainingModule
from spherenet_fast.training.optimization.ema import WeightAverage
from spherenet_fast.training.potential import read_checkpoint
from spherenet_fast.training.prepare import prepare_molecules, prepare_split


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(tiny_config(), out)
    return out


# Steps 4, 9, ... are followed by a validation, 7 is not, and a row of metrics is written every third step.
@pytest.mark.parametrize("step", [0, 4, 7])
def test_ctrl_c_and_resume_give_the_uninterrupted_run(uninterrupted, tmp_path, monkeypatch, capsys, step):
    with monkeypatch.context() as patch:
        before_step(patch, step, lambda: os.kill(os.getpid(), signal.SIGINT))
        assert train(tiny_config(), tmp_path / "run") is None
    assert f"stopped after step {step + 1}" in capsys.readouterr().err
    assert read_checkpoint(tmp_path / "run" / "last.ckpt")["global_step"] == step + 1
    assert (tmp_path / "run" / "learning_curve.png").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert train(tiny_config(), tmp_path / "run", resume=True)["step"] == 12
    same_run(uninterrupted, tmp_path / "run")


def test_the_kernels_train_and_evaluate_as_the_readable_operators_do(tmp_path):
    found = {}
    for kernels in (True, False):
        out = tmp_path / str(kernels)
        results = train(tiny_config(model__kernels=kernels, data__dtype="float64"), out)
        potential = Potential.load(out / "best.ckpt")
        assert potential.model.hparams["kernels"] is kernels
        found[kernels] = results["mae"], potential.state()["weights"]
    # rounding, 1e-16, grows in 12 steps of Adam, which divides gradients by their own size
    assert found[True][0] == pytest.approx(found[False][0], rel=1e-6)
    torch.testing.assert_close(found[True][1], found[False][1], rtol=1e-6, atol=1e-8)


def test_resume_after_a_crash_goes_back_to_the_last_validation(uninterrupted, tmp_path, monkeypatch):
    class PowerCut(Exception):
        pass

    def cut():
        raise PowerCut

    with monkeypatch.context() as patch:
        before_step(patch, 8, cut)
        with pytest.raises(PowerCut):
            train(tiny_config(), tmp_path / "run")
    assert read_checkpoint(tmp_path / "run" / "last.ckpt")["global_step"] == 5
    train(tiny_config(), tmp_path / "run", resume=True)
    same_run(uninterrupted, tmp_path / "run")


def test_resume_without_validation_and_without_average(tmp_path, monkeypatch):
    config = tiny_config(data__val=0, optimizer__ema_decay=None, training__max_steps=8)
    train(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        before_step(patch, 5, lambda: os.kill(os.getpid(), signal.SIGINT))
        assert train(config, tmp_path / "run") is None
    train(config, tmp_path / "run", resume=True)
    same_run(tmp_path / "whole", tmp_path / "run")
    best, last = (read_checkpoint(tmp_path / "run" / name) for name in ("best.ckpt", "last.ckpt"))
    assert torch.equal(best["weights"]["emb.dist_emb.freq"], last["state_dict"]["potential.model.emb.dist_emb.freq"])


def test_resume_of_a_finished_run_can_be_extended(tmp_path, capsys):
    train(tiny_config(training__max_steps=6), tmp_path / "run")
    assert train(tiny_config(training__max_steps=6), tmp_path / "run", resume=True)["step"] == 6
    assert "the learning rate goes up again" not in capsys.readouterr().err
    assert train(tiny_config(training__max_steps=8), tmp_path / "run", resume=True)["step"] == 8
    # lr (1 + cos(pi 5/6)) / 2 and lr (1 + cos(pi 6/8)) / 2
    expected = "the budget has changed: the learning rate goes up again, from 6.7e-05 to 0.00015"
    assert expected in capsys.readouterr().err


def test_the_first_step_says_how_many_to_expect(tmp_path, monkeypatch, capsys):
    train(tiny_config(training__val_every=100), tmp_path / "steps")
    assert re.match(r"step 1 of 12: the first one took [\d.e-]+ s\n", capsys.readouterr().err)
    # A clock that only the steps move: one minute each, of which ten fit; resumed, half a minute each for ten more.
    clock = {"now": 0.0, "step": 60.0}
    monkeypatch.setattr("time.monotonic", lambda: clock["now"])

    def training_step(self, batch, batch_idx, plain=TrainingModule.training_step):
        clock["now"] += clock["step"]
        return plain(self, batch, batch_idx)

    monkeypatch.setattr(TrainingModule, "training_step", training_step)
    limits = {"training__max_steps": None, "training__val_every": 100}
    results = train(tiny_config(**limits, training__max_time=10), tmp_path / "minutes")
    shown = capsys.readouterr().err.splitlines()
    assert shown[0] == "step 1 of about 10: the first one took 60 s"
    assert results["step"] == 10 and results["note"].startswith("training ended after 10 steps, too few")
    assert json.loads((tmp_path / "minutes" / "results.json").read_text())["note"] == results["note"]
    clock["step"] = 30.0
    assert train(tiny_config(**limits, training__max_time=20), tmp_path / "minutes", resume=True)["step"] == 30
    assert capsys.readouterr().err.splitlines()[0] == "step 11 of about 30: the first one took 30 s"


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "2", "SLURM_LOCALID": "2"},
        {"LSB_JOBID": "7", "LSB_DJOB_RANKFILE": "hosts", "JSM_NAMESPACE_LOCAL_RANK": "2", "JSM_NAMESPACE_SIZE": "4"},
        {"PL_TRAINER_NUM_NODES": "2", "PL_TRAINER_DEVICES": "4", "PL_TRAINER_STRATEGY": "ddp"},
    ],
    ids=["SLURM", "LSF", "Lightning"],
)
def test_one_process_trains_whatever_a_cluster_says(tmp_path, monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(rank_zero_only, "rank", 2)  # what Lightning makes of such variables when it is imported
    config = tiny_config(training__tensorboard=True, training__max_steps=2, training__log_every=1)
    assert train(config, tmp_path / "run")["step"] == 2
    assert [row["step"] for row in read_metrics(tmp_path / "run" / "metrics.csv")] == [1, 2, 2]
    assert any(name.startswith("events.") for name in os.listdir(tmp_path / "run" / "tensorboard"))


def test_the_folder_is_claimed_when_the_trainer_is_ready(tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("no such accelerator")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="no such accelerator"):
        patch.setattr("lightning.pytorch.Trainer", broken)
        train(tiny_config(), tmp_path / "run")
    assert os.listdir(tmp_path) == []


def test_of_two_runs_that_begin_at_once_in_a_folder_one_is_refused(tmp_path, monkeypatch):
    def another_begins(*args):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "config.yaml").write_text("of another run")
        return prepare_split(*args)

    monkeypatch.setattr("spherenet_fast.training.run.prepare_split", another_begins)
    with pytest.raises(ValueError, match="got .*run, which is in use; --resume"):
        train(tiny_config(), tmp_path / "run")
    assert (tmp_path / "run" / "config.yaml").read_text() == "of another run"


def test_what_a_run_leaves(uninterrupted):
    names = {"config.yaml", "split.npz", "metrics.csv", "learning_curve.png", "results.json"}
    assert set(os.listdir(uninterrupted)) == names | {"last.ckpt", "previous.ckpt", "best.ckpt"}
    rows = read_metrics(uninterrupted / "metrics.csv")
    assert [row["step"] for row in rows if "train_loss" in row] == [3, 6, 9, 12]
    assert [row["step"] for row in rows if "val_loss" in row] == [5, 10, 12]
    assert (uninterrupted / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    results = json.loads((uninterrupted / "results.json").read_text())
    assert results["units"] == {"energy": "kcal/mol", "forces": "kcal/mol/Ang"}


def test_results_are_those_of_the_best_averaged_weights(uninterrupted):
    potential, molecules, split = untrained("float32")
    best = Potential.load(uninterrupted / "best.ckpt")
    mae = evaluate(best, molecules, split.test, batch_size=3)[0]
    results = json.loads((uninterrupted / "results.json").read_text())
    # Another batch size adds up float32 numbers in another order.
    assert mae == pytest.approx(results["mae"], rel=1e-4)
    rows = {row["val_loss"]: row for row in read_metrics(uninterrupted / "metrics.csv") if "val_loss" in row}
    validated = evaluate(best, molecules, split.val)[0]
    assert validated["forces"] == pytest.approx(rows[min(rows)]["val_mae_forces"], rel=1e-4)
    # Evaluated in float32 without the references, there; in float64 with them, here: 97,000 kcal/mol, but float64.
    assert validated["energy"] == pytest.approx(rows[min(rows)]["val_mae_energy"], rel=1e-4)


def test_training_on_a_few_frames_learns_them(tmp_path):
    config = tiny_config(
        data__train=4, data__val=0, data__test=0, training__batch_size=4, training__max_steps=150,
        training__log_every=10, optimizer__lr=0.01, optimizer__schedule="constant", model__hidden_channels=16,
    )  # fmt: skip
    train(config, tmp_path / "run")
    losses = [row["train_loss"] for row in read_metrics(tmp_path / "run" / "metrics.csv")]
    assert losses[-1] < 0.5 * losses[1]


def test_qm9_target_in_float64_with_other_losses(tmp_path):
    config = tiny_config(
        "qm9", data__targets="[mu,alpha,homo]", data__dtype="float64", loss__energy="huber", training__max_steps=4,
        optimizer__schedule="step", optimizer__step_size=2, optimizer__gradient_clip=0.5,
    )  # fmt: skip
    results = train(config, tmp_path / "run")
    assert results["units"] == {"mu": "D", "alpha": "Bohr^3", "homo": "meV"}
    assert all(map(math.isfinite, results["mae"].values()))


def test_the_clock_ends_a_run_at_learning_rate_zero(tmp_path):
    config = tiny_config(training__max_steps=None, training__max_time=0.03, training__log_every=1, data__test=1)
    results = train(config, tmp_path / "run")
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.csv") if "lr" in row]
    assert results["step"] == rows[-1]["step"] > 5
    # The last step begins just before the end: within a tenth of the time, where the cosine is below 0.025.
    assert rows[-1]["lr"] < 0.025 * config.optimizer.lr
    assert rows[-1]["minutes"] > 0.02  # no upper bound: a busy machine may take its time over the last step


def test_max_epochs_counts_passes_over_the_training_set(tmp_path):
    config = tiny_config(training__max_steps=None, training__max_epochs=2, training__val_every=None, data__train=6)
    assert train(config, tmp_path / "run")["step"] == 6
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    assert [row["epoch"] for row in rows if "val_loss" in row] == [1, 2]


@pytest.mark.parametrize(("max_steps", "steps"), [(2, 2), (9, 3)])
def test_of_two_limits_the_first_one_ends_the_run(tmp_path, max_steps, steps):
    config = tiny_config(training__max_steps=max_steps, training__max_epochs=1, data__train=6)
    assert train(config, tmp_path / "run")["step"] == steps


def test_gradients_are_clipped(tmp_path, monkeypatch):
    norms = []

    def optimizer_step(self, *arguments, plain=TrainingModule.optimizer_step):
        plain(self, *arguments)
        norms.append(torch.nn.utils.get_total_norm([p.grad for p in self.parameters() if p.grad is not None]).item())

    monkeypatch.setattr(TrainingModule, "optimizer_step", optimizer_step)
    for clip in (None, 1e-3):
        changes = dict(training__max_steps=1, data__val=0, data__test=0)
        train(tiny_config(optimizer__gradient_clip=clip, **changes), tmp_path / str(clip))
    assert norms[0] > 0.01
    assert norms[1] == pytest.approx(1e-3, rel=1e-3)  # PyTorch divides by the norm + 1e-6


def test_the_average_counts_steps_from_one(tmp_path, monkeypatch):
    """The formula of `WeightAverage`, with the step of the optimizer, on the weights of a run."""
    steps = []

    def update(self, step, plain=WeightAverage.update):
        n = len(steps) + 1
        before = {name: value.clone() for name, value in self.values.items()}
        plain(self, step)
        decay = (1 + n) / (10 + n)
        for name, value in self.values.items():
            expected = decay * before[name] + (1 - decay) * self.parameters[name].detach()
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-7)  # float32, three roundings
        steps.append(step)

    monkeypatch.setattr(WeightAverage, "update", update)
    train(tiny_config(training__max_steps=3, optimizer__lr=0.01, data__val=0, data__test=0), tmp_path / "run")
    assert len(steps) == 3


def test_periodic_structures_from_a_file(tmp_path):
    structures = [bulk("Pt", cubic=True) for _ in range(6)]
    for number, atoms in enumerate(structures):
        atoms.rattle(0.1, seed=number)
        atoms.calc = EMT()
        atoms.get_forces()
    ase.io.write(tmp_path / "pt.extxyz", structures)
    config = tiny_config(
        data__source=tmp_path / "pt.extxyz",
        data__train=4,
        data__val=1,
        data__test=1,
        data__units="{energy: meV}",
        training__max_steps=3,
    )
    results = train(config, tmp_path / "run")
    assert results["units"] == {"energy": "meV", "forces": "meV/Ang"}
    assert all(map(math.isfinite, results["mae"].values()))


def test_split_file_is_followed(tmp_path):
    molecules = prepare_molecules(tiny_config().data)
    split = random_split(molecules, 5, 2, 3, seed=9)
    split.save(tmp_path / "s.npz")
    config = tiny_config(data__split=tmp_path / "s.npz", training__max_steps=1)
    train(config, tmp_path / "run")
    with np.load(tmp_path / "run" / "split.npz") as saved:
        assert saved["train"].tolist() == split.train.tolist() and saved["test"].tolist() == split.test.tolist()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"data__train": 999, "data__val": 2}, ValueError, r"at most 1000 training frames in all, got 999 \+ 2"),
        ({"data__targets": "[dipole]", "data__forces": False}, ValueError, "expected some of energy, got 'dipole'"),
        ({"data__source": "nowhere.npz"}, FileNotFoundError, "there is no '.*nowhere.npz'"),
        ({"data__units": "{energy: parsec}"}, ValueError, "expected one of eV, .* got 'parsec'"),
        ({"model__use_angle": False}, ValueError, "torsion': expected None"),
        ({"model__num_spherical": 99}, ValueError, "num_spherical"),
        ({"model__cutoff": 1e-3}, ValueError, "'model.cutoff': expected .* neighbors, got 0.001, within which none"),
        ({"data__split": "nowhere.npz"}, FileNotFoundError, "no such split file"),
    ],
)
def test_wrong_input_leaves_nothing_behind(tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        train(tiny_config(**changes), tmp_path / "run")
    assert os.listdir(tmp_path) == []


def test_a_used_folder_is_not_overwritten(uninterrupted):
    before = (uninterrupted / "last.ckpt").read_bytes()
    with pytest.raises(ValueError, match="expected a new folder, got .*whole, which is in use; --resume"):
        train(tiny_config(), uninterrupted)
    assert (uninterrupted / "last.ckpt").read_bytes() == before


def test_resume_refuses_another_run(uninterrupted, tmp_path):
    with pytest.raises(ValueError, match="expected training.batch_size = 2 as in .*last.ckpt, got 4"):
        train(tiny_config(training__batch_size=4), uninterrupted, resume=True)
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        train(tiny_config(), tmp_path / "run", resume=True)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.ckpt").write_bytes((uninterrupted / "last.ckpt").read_bytes()[:5000])
    with pytest.raises(ValueError, match="it is empty, truncated or another file"):
        train(tiny_config(), tmp_path / "run", resume=True)
    (tmp_path / "run" / "last.ckpt").write_bytes((uninterrupted / "best.ckpt").read_bytes())
    with pytest.raises(ValueError, match="expected the checkpoint of a training run"):
        train(tiny_config(), tmp_path / "run", resume=True)


@pytest.mark.parametrize(("step", "saved"), [(2, False), (7, True)])
def test_a_loss_that_is_not_finite_ends_the_run(tmp_path, monkeypatch, step, saved):
    plain = TrainingModule.training_step

    def training_step(self, batch, batch_idx):
        return plain(self, batch, batch_idx) * (math.nan if self.global_step >= step else 1)

    monkeypatch.setattr(TrainingModule, "training_step", training_step)
    with pytest.raises(FloatingPointError, match="the loss stopped being finite before step .*optimizer.lr") as error:
        train(tiny_config(), tmp_path / "run")
    assert (tmp_path / "run" / "last.ckpt").exists() == saved
    assert ("last.ckpt holds the last saved state" in str(error.value)) == saved


def test_a_gpu_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="'training.device': expected cpu or auto where PyTorch finds no GPU"):
        train(tiny_config(training__device="gpu"), tmp_path / "run")
    assert os.listdir(tmp_path) == []


def test_energy_units_only_change_the_units(uninterrupted, tmp_path):
    config = tiny_config(data__units="{energy: eV}")
    mae = train(config, tmp_path / "run")["mae"]
    before = json.loads((uninterrupted / "results.json").read_text())["mae"]
    factor = conversion("kcal/mol", "eV")
    # Twelve steps in float32 from labels that differ in the last bit.
    assert mae["forces"] == pytest.approx(before["forces"] * factor, rel=1e-3)
    assert replace(config.data, units={}) == tiny_config().data
