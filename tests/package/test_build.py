"""Which CUDA kernels setup.py builds, and what the build leaves beside them."""

import importlib.util
import subprocess
from pathlib import Path

import pytest
import torch

from spherenet_fast import _library

ROOT = Path(__file__).parents[2]
NVCC = "#!/bin/sh\nprintf 'compute_75\\ncompute_80\\ncompute_86\\ncompute_90\\ncompute_100\\n'\n"
ALL = "8.0;9.0;10.0+PTX"  # of setup.py's list those that this nvcc knows


@pytest.fixture
def setup_py(monkeypatch):
    """The module setup.py, which builds nothing."""
    monkeypatch.setattr("setuptools.setup", lambda **arguments: None)
    monkeypatch.setenv("SPHERENET_FAST_CUDA", "0")
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    spec = importlib.util.spec_from_file_location("setup_py", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.delenv("SPHERENET_FAST_CUDA")
    return module


@pytest.fixture
def toolkit(tmp_path, monkeypatch):
    """A CUDA toolkit whose nvcc only lists what it knows."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "include").mkdir()
    (tmp_path / "include/cuda_runtime.h").touch()
    (tmp_path / "bin/nvcc").write_text(NVCC)
    (tmp_path / "bin/nvcc").chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def torch_with(monkeypatch):
    """A function that gives torch a version of CUDA, or None, and GPUs of such compute capabilities."""

    def pretend(cuda, *capabilities):
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(capabilities))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capabilities[device])

    return pretend


def test_no_cuda_kernels_for_a_torch_without_cuda(setup_py, toolkit, torch_with):
    torch_with(None)
    assert setup_py.cuda_plan() == (None, "", f"torch {torch.__version__} is not a CUDA build")


def test_no_cuda_kernels_without_nvcc(setup_py, torch_with, monkeypatch):
    torch_with("13.0", (9, 0))
    monkeypatch.setattr(setup_py, "cuda_home", lambda: None)
    home, _, reason = setup_py.cuda_plan()
    assert home is None and "no CUDA toolkit with nvcc" in reason


@pytest.mark.parametrize(
    ("capabilities", "expected", "reason"),
    [
        ([], ALL, "torch sees no GPU here"),
        ([(9, 0)], "9.0", "the GPU here has compute capability 9.0"),
        ([(9, 0), (8, 6), (9, 0)], "8.6;9.0", "9.0"),
        ([(7, 5), (8, 0)], "8.0", "8.0"),
        ([(12, 1)], ALL, "12.1"),  # which this nvcc does not know: from PTX
    ],
)
def test_kernels_for_the_gpus_at_hand_else_for_all(setup_py, toolkit, torch_with, capabilities, expected, reason):
    torch_with("13.0", *capabilities)
    home, architectures, why = setup_py.cuda_plan()
    assert (home, architectures) == (toolkit, expected) and reason in why


def test_no_cuda_kernels_for_a_gpu_that_is_too_old(setup_py, toolkit, torch_with):
    torch_with("13.0", (7, 5))
    assert setup_py.cuda_plan() == (None, "", "the GPU has compute capability 7.5, and 8.0 is needed")


def test_cuda_kernels_by_order(setup_py, toolkit, torch_with, monkeypatch):
    torch_with(None)
    monkeypatch.setenv("SPHERENET_FAST_CUDA", "1")
    assert setup_py.cuda_plan()[:2] == (toolkit, ALL)
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0")
    assert setup_py.cuda_plan() == (toolkit, "9.0", "TORCH_CUDA_ARCH_LIST")
    monkeypatch.setenv("SPHERENET_FAST_CUDA", "0")
    assert setup_py.cuda_plan()[0] is None


@pytest.mark.parametrize(
    ("value", "message"), [("1", "=1, but no CUDA toolkit with nvcc"), ("yes", "expected auto, 0 or 1, got 'yes'")]
)
def test_wrong_orders(setup_py, monkeypatch, value, message):
    monkeypatch.setattr(setup_py, "cuda_home", lambda: None)
    monkeypatch.setenv("SPHERENET_FAST_CUDA", value)
    with pytest.raises(SystemExit, match=message):
        setup_py.cuda_plan()


def test_the_sources_of_both_builds(setup_py, toolkit):
    names = [{Path(name).suffix for name in setup_py.extension(home).sources} for home in (None, toolkit)]
    assert names == [{".cpp"}, {".cpp", ".cu"}]


def test_the_record_of_the_cuda_kernels(tmp_path, monkeypatch):
    monkeypatch.setattr(_library, "loaded_path", lambda: tmp_path / "_C.abi3.so")
    for has_kernels, expected in ((False, "none"), (True, "for architectures that are not recorded")):
        monkeypatch.setattr(_library, "has_cuda_kernels", lambda found=has_kernels: found)
        assert _library.cuda_architectures() == expected
    (tmp_path / _library.CUDA_RECORD).write_text("9.0 (TORCH_CUDA_ARCH_LIST)\n")
    assert _library.cuda_architectures() == "9.0 (TORCH_CUDA_ARCH_LIST)"


def test_a_recent_glibc_is_not_needed():
    """libstdc++ of GCC 11 and newer takes the variable from glibc 2.32, where it is built with such a one."""
    command = ["nm", "-D", "--undefined-only", str(_library.loaded_path())]
    wanted = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "__libc_single_threaded" not in wanted and "aoti_torch_" in wanted
