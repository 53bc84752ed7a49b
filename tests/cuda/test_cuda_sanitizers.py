"""The CUDA kernels, run on the CPU, under AddressSanitizer and ThreadSanitizer: cuda/run_kernels.cpp.

What the sanitizers see of kernels with mistakes is in test_cuda_harness.py.
"""

import pytest
from cuda_harness import HARNESS, KERNELS, TRIALS, build_program, run_program

SOURCES = [HARNESS / "run_kernels.cpp", *TRIALS, *KERNELS]
GRAPHS = ("molecule", "star", "many neighbors", "periodic", "no atoms", "four atoms", "molecule, padded")


@pytest.fixture(scope="module", params=["address", "thread"])
def program(request, pytestconfig):
    return build_program("run_kernels", SOURCES, request.param, pytestconfig.cache.mkdir("cuda_harness"))


# One process each: ThreadSanitizer's clocks are as long as the largest block of threads so far.
@pytest.mark.parametrize("kernel", [kernel.stem for kernel in KERNELS])
def test_kernels_are_clean(program, kernel):
    done = run_program(program, kernel)
    assert done.returncode == 0 and done.stderr == "", done.stdout[-1000:] + done.stderr[-4000:]
    assert "failed" not in done.stdout
    for graph in GRAPHS:
        assert f"{graph}, {kernel}: passed" in done.stdout
