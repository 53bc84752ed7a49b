"""Steps of several batches, whose gradients are averaged."""

import signal

import pytest
import torch
from test_resume import send
from training_runs import before_step, same_run, tiny_config

from spherenet_fast.training import train
from spherenet_fast.training.callbacks.logs import read_metrics
from spherenet_fast.training.checkpoint import read_checkpoint
from spherenet_fast.training.module import TrainingModule

HALVES = {"training__batch_size": 2, "training__accumulate": 2}


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Drawing the learning curve takes longer than these runs."""
    monkeypatch.setattr("spherenet_fast.training.run.plot_learning_curve", lambda *arguments: None)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_two_batches_of_a_half_are_one(tmp_path, optimizer):
    """All molecules have as many atoms, so that the mean over both is that over all."""
    options = {"data__dtype": "float64", "training__augment_reflections": False, "optimizer__name": optimizer}
    options |= {"model__hidden_channels": 32}  # matrices wide enough for Muon
    train(tiny_config(training__batch_size=4, **options), tmp_path / "whole")
    train(tiny_config(**HALVES, **options), tmp_path / "halves")
    one, two = (read_checkpoint(tmp_path / name / "last.ckpt") for name in ("whole", "halves"))
    assert one["global_step"] == two["global_step"] == 12
    for name, weight in one["potential"]["weights"].items():
        # float64 sums in another order, through 12 steps of optimizers that divide by the size of a gradient
        assert torch.allclose(weight, two["potential"]["weights"][name], rtol=1e-4, atol=1e-6), name
    for left, right in zip(
        *(read_metrics(tmp_path / name / "metrics.csv") for name in ("whole", "halves")), strict=True
    ):
        assert left["step"] == right["step"] and left["epoch"] == pytest.approx(right["epoch"])
        losses = [name for name in left if name.endswith("_loss")]
        assert [left[name] for name in losses] == pytest.approx([right[name] for name in losses], rel=1e-5)


def test_resumed_it_is_the_uninterrupted_run(tmp_path, monkeypatch, capsys):
    """Stopped by a signal in the first batch of a step, which is finished before it is saved."""
    config = tiny_config(**HALVES, model__torsion="smooth", training__augment_reflections=True)
    drawn = []
    plain = TrainingModule._mirrored
    monkeypatch.setattr(
        TrainingModule, "_mirrored", lambda self, batch, number: drawn.append(number) or plain(self, batch, number)
    )
    train(config, tmp_path / "whole")
    assert drawn == [0, 1] * 12
    with monkeypatch.context() as patch:
        before_step(patch, 6, send(signal.SIGTERM))
        assert train(config, tmp_path / "run") is None
    assert "after step 7 by SIGTERM" in capsys.readouterr().err
    train(config, tmp_path / "run", resume=True)
    same_run(tmp_path / "whole", tmp_path / "run")


def test_epochs_and_validations_count_molecules(tmp_path):
    """Nine molecules are four batches, two steps."""
    config = tiny_config(**HALVES, training__max_steps=None, training__max_epochs=2, training__val_every=None)
    assert train(config, tmp_path / "run")["step"] == 4
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    assert [(row["step"], row["epoch"]) for row in rows if "val_loss" in row] == [(2, 1), (4, 2)]
