"""Loggers beside metrics.csv: TensorBoard's is tried in `test_training.py`; here Weights & Biases."""

import pytest
from training_runs import tiny_config

from spherenet_fast.training import train


def test_a_run_of_weights_and_biases_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="Weights & Biases is not installed")
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    monkeypatch.setenv("WANDB_SILENT", "true")
    config = tiny_config(training__wandb="offline", training__max_steps=2, training__log_every=1, data__test=0)
    train(config, tmp_path / "run")
    (path,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    file, logged = DataStore(), []
    file.open_for_scan(str(path))
    while (data := file.scan_data()) is not None:
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        logged += [{"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}]
    found = [row for row in logged if "train_mae_forces" in row]
    assert len(found) == 2 and all(float(row["train_mae_forces"]) > 0 for row in found)
    assert any("val_mae_energy" in row for row in logged)


def test_weights_and_biases_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr("spherenet_fast.training.callbacks.logs.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"training.wandb: expected Weights & Biases installed \(pip install wandb\)"):
        train(tiny_config(training__wandb="offline", training__max_steps=1), tmp_path / "run")
    assert not (tmp_path / "run").exists()
