"""States that --resume cannot go on from: one line that names the file, and nothing of the run is touched."""

import json

import numpy as np
import pytest
from commands import call

from spherenet_fast.dynamics.records import LOG, TRAJECTORY
from spherenet_fast.dynamics.state import STATE


@pytest.fixture
def saved(checkpoint, water, tmp_path):
    """Checkpoint, structure and folder of a run of three steps, and the arrays of its state."""
    assert call("md", checkpoint, water, "-o", tmp_path / "run", "--steps", 3)[0] == 0
    return checkpoint, water, tmp_path / "run", dict(np.load(tmp_path / "run" / STATE))


@pytest.mark.parametrize(
    "wrong",
    [
        {"positions": np.zeros((2, 3))},
        {"momenta": np.full((3, 3), np.nan)},
        {"cell": np.zeros(3)},
        {"positions": np.array([["a"] * 3] * 3)},
        {"step": "three"},
        {"step": -1},
        {"rng": []},
        {"rng": [{"bit_generator": "PCG64"}]},
        {"run": None},
        {"places": {}},
        {"places": [{"trajectory": {"head": "00", "size": 1}, "log": {"size": 1}, "step": 1}]},
        {"places": [{"trajectory": {"head": "00" * 48, "size": 1.5}, "log": {"size": 1}, "step": 1}]},
        {"places": [{"trajectory": {"head": "00" * 48, "size": 1}, "log": {}, "step": 1}]},
        {"places": [{"trajectory": {"head": "00" * 48, "size": 1}, "log": {"size": 1}, "step": 1}] * 2},
    ],
    ids=repr,
)
def test_a_state_altered_by_hand_is_named(saved, tmp_path, wrong):
    """One line that names the file, whatever stands in it, and nothing of the run is touched."""
    checkpoint, water, out, arrays = saved
    arrays, others = dict(arrays), json.loads(arrays["others"].tobytes())
    for name, value in wrong.items():
        if name in arrays:
            arrays[name] = value
        else:
            assert name in others
            others[name] = value
    arrays["others"] = np.frombuffer(json.dumps(others).encode(), dtype=np.uint8)
    np.savez(out / STATE, **arrays)
    before = (out / TRAJECTORY).read_bytes(), (out / LOG).read_bytes()
    status, _, err = call("md", checkpoint, water, "-o", out, "--steps", 5, "--resume")
    assert status == 2 and err.count("\n") == 1
    assert f"{out / STATE}: expected the saved state of a run, got another or damaged file" in err
    assert before == ((out / TRAJECTORY).read_bytes(), (out / LOG).read_bytes())


def test_a_truncated_state_is_named(saved):
    checkpoint, water, out, arrays = saved
    np.savez(out / STATE, **arrays)
    whole = (out / STATE).read_bytes()
    for size in (0, 1, len(whole) // 3, len(whole) - 1):
        (out / STATE).write_bytes(whole[:size])
        status, _, err = call("md", checkpoint, water, "-o", out, "--steps", 5, "--resume")
        assert status == 2 and err.count("\n") == 1 and "got another or damaged file" in err


def test_another_trajectory_is_not_cut(checkpoint, water, tmp_path):
    out = tmp_path / "run"
    assert call("md", checkpoint, water, "-o", out, "--steps", 3)[0] == 0
    other = b"x" * (out / TRAJECTORY).stat().st_size
    (out / TRAJECTORY).write_bytes(other)
    status, _, err = call("md", checkpoint, water, "-o", out, "--steps", 5, "--resume")
    assert status == 2 and "trajectory.traj: expected the trajectory that belongs to the saved state" in err
    assert (out / TRAJECTORY).read_bytes() == other
