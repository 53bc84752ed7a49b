"""Loggers beside metrics.csv: TensorBoard's is tried in `test_training.py`; here Weights & Biases."""

import pytest
from training_runs import tiny_config

from spherenet_fast.training import train


def test_a_run_of_weights_and_biases_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="Weights & Biases is not installed")
    monkeypatch.setenv("WANDB_SILENT", "true")
    config = tiny_config(training__wandb="offline", training__max_steps=2, training__log_every=1, data__test=0)
    train(config, tmp_path / "run")
    (path,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    written = path.read_bytes()  # records of protobuf, in which the names of what is logged stand as they are
    assert written.count(b"train_mae_forces") >= 2 and b"val_mae_energy" in written


def test_weights_and_biases_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr("spherenet_fast.training.callbacks.logs.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"training.wandb: expected Weights & Biases installed \(pip install wandb\)"):
        train(tiny_config(training__wandb="offline", training__max_steps=1), tmp_path / "run")
    assert not (tmp_path / "run").exists()
