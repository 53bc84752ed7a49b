"""spherenet-fast info: what it says of the machine, and whether it notices wrong kernels."""

import importlib.metadata
import math

import numpy
import pytest
import torch
from commands import call
from compiled_calls import REGISTERED

import spherenet_fast
from spherenet_fast import _environment, _library, ops, pretrained
from spherenet_fast.cli import _self_test
from spherenet_fast.cli.info import self_test

CPU = torch.device("cpu")


def shown(expected_code):
    """What the command prints, as {name: text}."""
    code, output, _ = call("info")
    assert code == expected_code
    return dict(line.split(": ", 1) for line in map(" ".join, map(str.split, output.splitlines())))


def test_all_is_well(instruction_set):
    facts = shown(0)
    assert facts["spherenet_fast"].startswith(f"{spherenet_fast.__version__}, ")
    assert facts["torch"].startswith(torch.__version__)
    assert facts["library"] == str(_library.loaded_path())
    assert facts["CPU kernels"] == f"{_library.cpu_instruction_set()} (SPHERENET_FAST_CPU={instruction_set})"
    assert facts["CUDA kernels"].startswith("none") != _library.has_cuda_kernels()
    assert facts["weights"] == ", ".join(pretrained.names())
    assert facts["test on cpu"].startswith("passed, relative errors: energy ")


def test_the_instruction_set_that_is_asked_for(monkeypatch):
    monkeypatch.setenv("SPHERENET_FAST_CPU", "baseline")
    assert _library.cpu_instruction_set() == "baseline"
    monkeypatch.setenv("SPHERENET_FAST_CPU", "AVX2")
    with pytest.warns(UserWarning, match="SPHERENET_FAST_CPU: expected baseline, avx2, avx512, got 'AVX2', taken for"):
        _library.load()
    assert _library.cpu_instruction_set() == "baseline"


def test_the_self_test_calls_every_operator(monkeypatch):
    called = set()

    def recorder(name, operator):
        return lambda *arguments: called.add(name) or operator(*arguments)

    for name in REGISTERED:
        monkeypatch.setattr(torch.ops.spherenet_fast, name, recorder(name, getattr(torch.ops.spherenet_fast, name)))
    errors = _self_test.largest_errors(CPU)
    assert 0 < max(errors.values()) < 1e-5  # float32 rounds to 6e-8; a tenth of what the self-test lets pass
    assert REGISTERED - called == {"neighbor_edges", "neighbor_pointers"}  # the search for neighbors on a GPU


@pytest.mark.parametrize("factor", [1.001, math.nan])
def test_a_wrong_kernel_is_noticed(monkeypatch, factor):
    right = ops.segment_sum
    monkeypatch.setattr(ops, "segment_sum", lambda *arguments: factor * right(*arguments))
    assert shown(1)["test on cpu"].startswith("FAILED, relative errors: energy ")


def test_a_kernel_that_raises_is_named(monkeypatch):
    def launch(*arguments):
        raise RuntimeError("segment_sum: no kernel image\nfor this device")

    monkeypatch.setattr(ops, "segment_sum", launch)
    assert shown(1)["test on cpu"] == "FAILED: RuntimeError: segment_sum: no kernel image for this device"


def test_a_library_that_does_not_load(monkeypatch):
    def load():
        try:
            raise OSError("_C.abi3.so: undefined symbol: aoti_torch_dtype\nTraceback")
        except OSError as error:
            raise OSError("Could not load this library") from error  # as torch.ops.load_library does

    monkeypatch.setattr(_library, "load", load)
    facts = shown(1)
    assert facts["library"] == "FAILED to load: _C.abi3.so: undefined symbol: aoti_torch_dtype Traceback"
    assert list(facts)[-1] == "library" and "devices" in facts


def test_a_library_of_other_sources(monkeypatch):
    library = torch.__path__[0] + "/lib/libtorch_global_deps.so"  # any library without our function
    monkeypatch.setattr(_library, "loaded_path", lambda: library)
    facts = shown(1)
    assert facts["library"].startswith(f"FAILED to load: spherenet_fast: {library} was built from other sources; build")


def test_a_gpu_without_kernels_for_it(monkeypatch):
    monkeypatch.setattr(_library, "has_cuda_kernels", lambda: False)
    assert self_test(torch.device("cuda", 0)) == "no CUDA kernels in this library"


def test_devices_are_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"NVIDIA H{device.index}00")
    names = list(map(_environment.device_text, _environment.devices()))
    assert names == ["cpu", *(f"cuda:{k} NVIDIA H{k}00, compute capability 9.0" for k in range(2))]


def test_packages_that_are_installed():
    found = _environment.packages(
        ["torch>=2.11", "numpy", "no-such-package_at.all>=1", 'numpy; extra == "x"', 'pytest; extra == "test"']
    )
    assert found == {"numpy": numpy.__version__, "pytest": importlib.metadata.version("pytest")}
