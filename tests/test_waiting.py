"""Threads that wait for work go to sleep, unless the user has chosen otherwise or torch is there already."""

import os
import subprocess
import sys

import pytest

SAID = "import os; print(os.environ.get('GOMP_SPINCOUNT'), os.environ.get('OMP_WAIT_POLICY'))"


@pytest.mark.parametrize(
    "code, chosen, expected",
    [
        ("import spherenet_fast", {}, "1000 None"),
        ("import torch, spherenet_fast", {}, "None None"),
        ("import spherenet_fast", {"GOMP_SPINCOUNT": "7"}, "7 None"),
        ("import spherenet_fast", {"OMP_WAIT_POLICY": "active"}, "None active"),
    ],
)
def test_who_decides(code, chosen, expected):
    environment = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", f"{code}; {SAID}"], env=environment | chosen, capture_output=True)
    assert done.stdout.decode().strip() == expected, done.stderr.decode()
