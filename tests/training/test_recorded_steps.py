"""Training by recorded operators: the same weights, bit by bit."""

import pytest
import torch
from training_runs import tiny_config

from spherenet_fast.nn.replay import Replay
from spherenet_fast.training import Potential, train

NEVER = 10**9


@pytest.mark.parametrize("torsion", ["smooth", "smooth_even", None])
def test_a_run_is_the_same_with_recorded_operators(torsion, tmp_path, monkeypatch):
    recorded, weights = [], {}
    record = Replay._record

    def counted(self, *arguments):
        record(self, *arguments)
        recorded.extend(self._recordings.values())

    monkeypatch.setattr(Replay, "_record", counted)
    for after in (NEVER, 3):
        monkeypatch.setattr(Replay.__init__, "__defaults__", (after,))
        train(tiny_config(model__torsion=torsion or "null"), tmp_path / str(after))
        weights[after] = Potential.load(tmp_path / str(after) / "last.ckpt").state_dict()
    assert recorded and None not in recorded  # in training and, for the test set, in evaluation mode
    assert all(torch.equal(weights[3][name], value) for name, value in weights[NEVER].items())
