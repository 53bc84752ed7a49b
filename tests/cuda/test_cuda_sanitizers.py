"""The CUDA kernels, run on the CPU, under AddressSanitizer and ThreadSanitizer: cuda/run_kernels.cpp.

What the sanitizers see of kernels with mistakes is in test_cuda_harness.py.
"""

import pytest
from cuda_harness import HARNESS, KERNELS, TRIALS, build_program, run_program

SOURCES = [HARNESS / "run_kernels.cpp", *TRIALS, *KERNELS]


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_kernels_are_clean(pytestconfig, sanitizer):
    program = build_program("run_kernels", SOURCES, sanitizer, pytestconfig.cache.mkdir("cuda_harness"))
    done = run_program(program)
    assert done.returncode == 0 and done.stderr == "", done.stdout[-1000:] + done.stderr[-4000:]
    assert "failed" not in done.stdout
    for kernel in KERNELS:
        for graph in ("molecule", "star", "many neighbors", "periodic", "no atoms", "four atoms", "molecule, padded"):
            assert f"{graph}, {kernel.stem}: passed" in done.stdout
