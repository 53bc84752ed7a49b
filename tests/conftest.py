"""What all tests share: a fixed seed, and the switches that the kernels must not depend on."""

import pytest
import torch


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def instruction_set(request, monkeypatch):
    """Runs the test once for each instruction set; where the processor has less, the best that it has is taken."""
    monkeypatch.setenv("SPHERENET_FAST_CPU", request.param)
    return request.param


@pytest.fixture
def set_threads():
    """torch.set_num_threads, undone after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
