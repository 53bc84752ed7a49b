"""Runs that end by SIGKILL anywhere, also within saves, on another file system than the temporary folder's."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import killed_runs
import numpy as np
import pytest
from training_runs import same_run

from spherenet_fast.training import train

KILLS = 20


@pytest.fixture
def other_file_system(tmp_path):
    """A folder in the memory's file system, where there is one; else a temporary one."""
    if not Path("/dev/shm").is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def test_a_run_that_is_killed_twenty_times_ends_like_one_that_is_not(tmp_path, other_file_system):
    train(killed_runs.config(), tmp_path / "whole")
    run = other_file_system / "run"
    # A life begins with a dozen such moments, and has another dozen between one checkpoint and the next.
    moments = np.random.default_rng(0).integers(1, 33, KILLS)
    command = [sys.executable, killed_runs.__file__, run, *moments, 10**9]
    child = subprocess.run(list(map(str, command)), env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True)
    assert child.returncode == 0, child.stderr.decode()[-2000:]
    assert child.stdout.split()[-1] == b"1", "some lives were too short to be killed"
    same_run(tmp_path / "whole", run)
    assert sorted(os.listdir(run)) == sorted(os.listdir(tmp_path / "whole"))
