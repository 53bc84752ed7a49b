"""What all tests share: a fixed seed, and the switches that the kernels must not depend on."""

import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from gpu import DEVICE

sys.path.append(str(Path(__file__).parents[1]))  # of `bench`; last, so that an installed spherenet_fast is tested

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before Triton is imported: its kernels run on CPU tensors

if "PYTEST_XDIST_WORKER" in os.environ:  # processes that each use all cores slow each other down many times
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def pytest_addoption(parser):
    parser.addoption("--all-blocks", action="store_true", help="run the long code blocks of the documentation, too")


def pytest_collection_modifyitems(items):
    if DEVICE == "cuda" and not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.fixture
def full_precision():
    """Products of float32 on a GPU are not rounded to TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture(autouse=True)
def interrupts_arrive():
    """Ctrl-C as in a terminal: a test run started in the background inherits an ignored SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def instruction_set(request, monkeypatch):
    """Runs the test once for each instruction set; where the processor has less, the best that it has is taken."""
    monkeypatch.setenv("SPHERENET_FAST_CPU", request.param)
    return request.param


@pytest.fixture
def poisoned_memory():
    """torch.empty full of NaN (or of the largest integer)."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def _cuda_operators(pytestconfig):
    from cuda_harness import operators

    return operators(pytestconfig.cache.mkdir("cuda_harness"))


@pytest.fixture
def cuda_operators(_cuda_operators):
    """`spherenet_fast.ops` over the CUDA kernels, run on the CPU. What a kernel does not write is NaN."""
    torch.use_deterministic_algorithms(True)  # fills new tensors
    yield _cuda_operators
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def set_threads():
    """torch.set_num_threads, undone after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
