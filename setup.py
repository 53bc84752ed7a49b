"""Builds one shared library, spherenet_fast/_C.abi3.so (_C.pyd on Windows), against torch's stable ABI.

SPHERENET_FAST_CUDA=auto|0|1 decides about CUDA kernels: built where nvcc is (auto), never (0), or else fail (1).
"""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
OLDEST_TORCH = (2, 11)
CUDA_ARCHITECTURES = (80, 90, 100, 120)  # those that nvcc knows of them

try:
    import torch
    from torch.utils import cpp_extension
except ImportError:
    sys.exit("spherenet_fast: building needs torch 2.11 or newer; install torch, then use --no-build-isolation")
if tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2]) < OLDEST_TORCH:
    sys.exit(f"spherenet_fast: building needs torch 2.11 or newer, found {torch.__version__}")
if not shutil.which(os.environ.get("CXX", "c++")) and not shutil.which("g++"):
    sys.exit("spherenet_fast: building needs a C++17 compiler; none found on PATH and CXX is not set to one")


def cuda_home():
    """The CUDA toolkit (nvcc and its headers), or None."""
    nvcc = shutil.which("nvcc")
    candidates = [os.environ.get("CUDA_HOME"), "/usr/local/cuda", nvcc and str(Path(nvcc).resolve().parents[1])]
    for candidate in filter(None, candidates):
        home = Path(candidate)
        if (home / "bin/nvcc").exists() and (home / "include/cuda_runtime.h").exists():
            return home
    return None


def architectures(home):
    """TORCH_CUDA_ARCH_LIST of those that this nvcc knows, the newest as PTX, too, for GPUs to come."""
    known = subprocess.run([home / "bin/nvcc", "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout
    wanted = [number for number in CUDA_ARCHITECTURES if f"compute_{number}" in known.split()]
    if not wanted:
        sys.exit(f"spherenet_fast: expected an nvcc for one of {CUDA_ARCHITECTURES}, {home}/bin/nvcc has none of them")
    return ";".join(f"{number // 10}.{number % 10}" for number in wanted) + "+PTX"


def extension():
    wanted = os.environ.get("SPHERENET_FAST_CUDA", "auto")
    if wanted not in ("auto", "0", "1"):
        sys.exit(f"spherenet_fast: SPHERENET_FAST_CUDA: expected auto, 0 or 1, got {wanted!r}")
    home = None if wanted == "0" else cuda_home()
    if wanted == "1" and home is None:
        sys.exit("spherenet_fast: SPHERENET_FAST_CUDA=1, but no CUDA toolkit with nvcc and cuda_runtime.h was found")

    sources = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").glob("*/*.cpp"))
    kernels = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc/cuda").glob("*.cu"))
    flags = ["-O3", "-std=c++17", "-fvisibility=hidden", "-fno-math-errno", "-Wall", "-g0", "-Wno-psabi"]
    flags += ["-Wno-ignored-attributes", "-DTORCH_TARGET_VERSION=0x020b000000000000"]
    arguments = {"cxx": flags}
    links = []
    if home is not None and kernels:
        cpp_extension.CUDA_HOME = str(home)  # a CPU build of torch leaves it None
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", architectures(home))
        flags.append("-DSPHERENET_FAST_CUDA")  # registers the operators for CUDA tensors, too
        # every file is compiled once for all architectures, those side by side
        arguments["nvcc"] = ["-O3", "-std=c++17", "-lineinfo", "--threads=4", "-Xcompiler=-fvisibility=hidden"]
        links = ["-lcudart_static", "-ldl", "-lrt", "-lpthread"]
        links += ["-Wl,--exclude-libs,libcudart_static.a"]  # not in the way of the CUDA runtime that torch has loaded
        links += [f"-L{home}/{folder}" for folder in ("lib64", "lib") if (home / folder).is_dir()]
        sources += kernels
    return cpp_extension.CppExtension(
        "spherenet_fast._C", sources, extra_compile_args=arguments, extra_link_args=links, py_limited_api=True
    )


class BuildWithRecord(cpp_extension.BuildExtension):
    """Leaves beside the library a digest of its sources, by which a clone knows the installed library as its own."""

    def run(self):
        super().run()
        loader = runpy.run_path(str(ROOT / "spherenet_fast/_library.py"))
        record = Path(self.get_ext_fullpath("spherenet_fast._C")).with_name(loader["SOURCES_RECORD"])
        record.write_text(loader["sources_digest"](ROOT / "csrc") + "\n")


setup(
    ext_modules=[extension()],
    cmdclass={"build_ext": BuildWithRecord},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
