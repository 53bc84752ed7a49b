"""Builds one shared library, spherenet_fast/_C.abi3.so (_C.pyd on Windows), against torch's stable ABI.

SPHERENET_FAST_CUDA decides about CUDA kernels:
    auto    where torch is a CUDA build and nvcc is there: for the GPUs at hand, without any for CUDA_ARCHITECTURES
    0       never
    1       for CUDA_ARCHITECTURES, whatever torch is; fails without nvcc
TORCH_CUDA_ARCH_LIST, as for other extensions of torch, chooses others.
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
CUDA_ARCHITECTURES = (80, 90, 100, 120)  # those that nvcc knows of them; none older than the first will do

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


def architectures(home, capabilities=()):
    """TORCH_CUDA_ARCH_LIST for GPUs of the given compute capabilities [(major, minor)].

    Where nvcc does not know one of them, or there are none: of CUDA_ARCHITECTURES, the newest as PTX, too, for GPUs to
    come.
    """
    known = subprocess.run([home / "bin/nvcc", "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout
    if capabilities and all(f"compute_{major}{minor}" in known.split() for major, minor in capabilities):
        return ";".join(f"{major}.{minor}" for major, minor in capabilities)
    wanted = [number for number in CUDA_ARCHITECTURES if f"compute_{number}" in known.split()]
    if not wanted:
        sys.exit(f"spherenet_fast: expected an nvcc for one of {CUDA_ARCHITECTURES}, {home}/bin/nvcc has none of them")
    return ";".join(f"{number // 10}.{number % 10}" for number in wanted) + "+PTX"


def cuda_plan():
    """The CUDA toolkit (None: no CUDA kernels), TORCH_CUDA_ARCH_LIST, and why."""
    wanted = os.environ.get("SPHERENET_FAST_CUDA", "auto")
    if wanted not in ("auto", "0", "1"):
        sys.exit(f"spherenet_fast: SPHERENET_FAST_CUDA: expected auto, 0 or 1, got {wanted!r}")
    if wanted == "0":
        return None, "", "SPHERENET_FAST_CUDA=0"
    if wanted == "auto" and torch.version.cuda is None:
        return None, "", f"torch {torch.__version__} is not a CUDA build"
    home = cuda_home()
    if home is None and wanted == "1":
        sys.exit("spherenet_fast: SPHERENET_FAST_CUDA=1, but no CUDA toolkit with nvcc and cuda_runtime.h was found")
    if home is None:
        return None, "", "no CUDA toolkit with nvcc and cuda_runtime.h was found"
    if chosen := os.environ.get("TORCH_CUDA_ARCH_LIST"):
        return home, chosen, "TORCH_CUDA_ARCH_LIST"
    if wanted == "1":
        return home, architectures(home), "SPHERENET_FAST_CUDA=1"
    devices = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    found = sorted({torch.cuda.get_device_capability(device) for device in devices})
    if not found:
        return home, architectures(home), "torch sees no GPU here"
    oldest = divmod(CUDA_ARCHITECTURES[0], 10)
    usable = [capability for capability in found if capability >= oldest]
    if not usable:
        return None, "", "the GPU has compute capability {}.{}, and {}.{} is needed".format(*found[-1], *oldest)
    return home, architectures(home, usable), "the GPU here has compute capability {}.{}".format(*usable[-1])


def extension(home):
    sources = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").glob("*/*.cpp"))
    kernels = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc/cuda").glob("*.cu"))
    flags = ["-O3", "-std=c++17", "-fvisibility=hidden", "-fno-math-errno", "-Wall", "-g0", "-Wno-psabi"]
    flags += ["-Wno-ignored-attributes", "-DTORCH_TARGET_VERSION=0x020b000000000000"]
    arguments = {"cxx": flags}
    links = []
    if home is not None and kernels:
        cpp_extension.CUDA_HOME = str(home)  # a CPU build of torch leaves it None
        # The runtime is linked statically and torch is reached through its stable ABI, so nvcc need not be of the
        # CUDA that torch was built with.
        cpp_extension._check_cuda_version = lambda *compiler: None
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
    """Leaves two records beside the library: a digest of its sources, by which a clone knows the installed library as
    its own, and the line about its CUDA kernels that `spherenet-fast info` shows."""

    def run(self):
        print(f"spherenet_fast: CUDA kernels: {CUDA_KERNELS}", flush=True)
        super().run()
        loader = runpy.run_path(str(ROOT / "spherenet_fast/_library.py"))
        library = Path(self.get_ext_fullpath("spherenet_fast._C"))
        library.with_name(loader["SOURCES_RECORD"]).write_text(loader["sources_digest"](ROOT / "csrc") + "\n")
        library.with_name(loader["CUDA_RECORD"]).write_text(CUDA_KERNELS + "\n")


TOOLKIT, ARCHITECTURES, REASON = cuda_plan()
if TOOLKIT is not None:
    os.environ["TORCH_CUDA_ARCH_LIST"] = ARCHITECTURES
CUDA_KERNELS = f"{ARCHITECTURES or 'none'} ({REASON})"
setup(
    ext_modules=[extension(TOOLKIT)],
    cmdclass={"build_ext": BuildWithRecord},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
