"""Loads the compiled operators into ``torch.ops.spherenet_fast``."""

import ctypes
import hashlib
import os
import sys
import warnings
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch

_OLDEST_TORCH = (2, 11)
_INSTRUCTION_SETS = ("baseline", "avx2", "avx512")
_PACKAGE = Path(__file__).parent
NAMESPACE = "spherenet_fast"  # the operators are torch.ops.spherenet_fast.*
SOURCES_RECORD = "_C.sources"  # beside the library: `sources_digest` of what it was built from
CUDA_RECORD = "_C.cuda"  # beside the library: the architectures of its CUDA kernels and why these, in a line


def load() -> None:
    """Registers the operators; raises ImportError where torch is too old or there is no library for these sources.

    A UserWarning says where SPHERENET_FAST_CPU is no instruction set: the library takes it for the slowest one.
    """
    chosen = os.environ.get("SPHERENET_FAST_CPU")
    if chosen and chosen not in _INSTRUCTION_SETS:
        known = ", ".join(_INSTRUCTION_SETS)
        warnings.warn(f"SPHERENET_FAST_CPU: expected {known}, got {chosen!r}, taken for baseline", stacklevel=2)
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < _OLDEST_TORCH:
        raise ImportError(f"spherenet_fast: needs torch 2.11 or newer, found {torch.__version__}")
    torch.ops.load_library(str(loaded_path()))


def loaded_path() -> Path:
    """The file that `load` loads."""
    return find_library(_PACKAGE, sys.path)


def find_library(package: Path, search: list[str]) -> Path:
    """The compiled library in the folder `package`, else an installed one that was built from the sources beside it.

    In a clone Python finds the source folder before the installed package. Its library serves the source folder, too,
    as long as the C++ in both is the same.

    Args:
        package: folder of the Python files that are to use the library.
        search: folders in which the package may be installed, as `sys.path`.

    Raises:
        ImportError: there is none, or only one that was built from other sources.
    """
    if library := _library_in(package):
        return library
    sources = package.parent / "csrc"
    installed = [_library_in(Path(folder) / package.name) for folder in search]
    installed = [library for library in installed if library is not None]
    digest = sources_digest(sources) if installed and sources.is_dir() else None
    for library in installed:
        record = library.with_name(SOURCES_RECORD)
        if digest is not None and record.is_file() and record.read_text().strip() == digest:
            return library
    build = f"build it with: pip install --no-build-isolation {package.parent}"
    if not installed:
        raise ImportError(f"spherenet_fast: the compiled library is missing; {build}")
    raise ImportError(
        f"spherenet_fast: the installed library {installed[0]} was built from other sources than those in {sources}; "
        f"{build} (or use the installed package from another folder)"
    )


def _library_in(package: Path) -> Path | None:
    """_C.abi3.so on Linux and macOS, _C.pyd on Windows, or with the name of one Python, as setuptools chooses."""
    paths = (package / f"_C{suffix}" for suffix in EXTENSION_SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def sources_digest(folder: Path) -> str:
    """A digest of all C++ and CUDA files in `folder`, names and contents."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (".h", ".cpp", ".cu")):
        content = path.read_bytes()
        total.update(f"{path.relative_to(folder).as_posix()} {len(content)}\n".encode() + content)
    return total.hexdigest()


@cache
def has_cuda_kernels() -> bool:
    """Whether the library was built with kernels for CUDA tensors."""
    return torch._C._dispatch_has_kernel_for_dispatch_key("spherenet_fast::gated_sum", "CUDA")


def cuda_architectures() -> str:
    """The CUDA kernels in the library, as its build recorded them: their architectures and why these, in a line."""
    record = loaded_path().with_name(CUDA_RECORD)
    if record.is_file():
        return record.read_text().strip()
    return "for architectures that are not recorded" if has_cuda_kernels() else "none"


def cpu_instruction_set() -> str:
    """What the loaded library's CPU kernels run on: "baseline", "avx2" or "avx512"; see SPHERENET_FAST_CPU.

    Raises ImportError if the library was built from sources without this function.
    """
    try:
        function = ctypes.CDLL(str(loaded_path())).spherenet_fast_cpu_instruction_set
    except AttributeError as error:
        build = "build it again: python setup.py build_ext --inplace"
        raise ImportError(f"spherenet_fast: {loaded_path()} was built from other sources; {build}") from error
    function.restype = ctypes.c_char_p
    return function().decode()
