"""Runs of dynamics that end by SIGKILL anywhere."""

import errno
import os
import subprocess
import sys

import ase.io
import ase.io.ulm
import killed_dynamics
import numpy as np
import pytest
from ase.build import molecule

from spherenet_fast.dynamics.records import LOG, TRAJECTORY, Trajectory
from spherenet_fast.dynamics.state import FILES, STATE, load_state

KILLS = 8


def test_runs_that_are_killed_end_like_one_that_is_not(tmp_path, checkpoint):
    # A life begins with up to six such moments, and every step has about three.
    moments = np.random.default_rng(0).integers(1, 25, KILLS)
    command = [sys.executable, killed_dynamics.__file__, tmp_path, *moments, 10**9]
    child = subprocess.run(list(map(str, command)), env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True)
    assert child.returncode == 0, child.stderr.decode()[-2000:]
    assert int(child.stdout) == len(killed_dynamics.ENSEMBLES), "some lives were too short to be killed"
    for ensemble in killed_dynamics.ENSEMBLES:
        same_end(tmp_path / f"{ensemble}-whole", tmp_path / ensemble)


def same_end(one, two):
    """Whether two runs ended with the same bits and have left the same files."""
    a, b = load_state(one / STATE), load_state(two / STATE)
    assert a.step == b.step == killed_dynamics.STEPS and a.rng == b.rng and a.arrays.keys() == b.arrays.keys()
    assert [name for name in a.arrays if not np.array_equal(a.arrays[name], b.arrays[name])] == []
    assert (one / LOG).read_bytes() == (two / LOG).read_bytes()
    frames = [ase.io.read(folder / TRAJECTORY, ":") for folder in (one, two)]
    assert len(frames[0]) == len(frames[1]) == 11
    for left, right in zip(*frames, strict=True):
        assert left == right and left.info == right.info
        assert np.array_equal(left.get_momenta(), right.get_momenta())
        assert np.array_equal(left.get_forces(), right.get_forces())
    assert sorted(os.listdir(one)) == sorted(os.listdir(two)) == sorted(FILES)
    assert np.ptp(np.linalg.norm(frames[0][-1].positions - frames[0][0].positions, axis=1)) > 0


def test_a_frame_that_is_left_unfinished_does_not_count(tmp_path, monkeypatch):
    atoms = molecule("H2O")
    trajectory = Trajectory.begin(tmp_path / TRAJECTORY, atoms)

    def full(*arguments):
        raise OSError(errno.ENOSPC, "no space left on device")  # as of a file object, without its name

    with monkeypatch.context() as patch:
        patch.setattr(ase.io.ulm, "writeint", full)
        with pytest.raises(OSError, match="cannot be written: no space.*trajectory.traj"):
            trajectory.write(atoms)
    trajectory.close()
    assert ase.io.read(tmp_path / TRAJECTORY, ":") == [atoms]
