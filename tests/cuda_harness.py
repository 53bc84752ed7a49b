"""Builds the CUDA kernels for the CPU: csrc/cuda/*.cu as C++ over the stand-in of cuda_runtime.h in tests/cuda/include.

`operators` makes those of `spherenet_fast.ops` once more, with csrc/torch on top of these kernels, every operator that
has a CUDA kernel being found by its stem. Object files are kept from one test run to the next, under names that say
what went into them.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import import_module
from inspect import isfunction
from pathlib import Path
from types import ModuleType

import torch
from torch.utils.cpp_extension import include_paths, library_paths

ROOT = Path(__file__).parents[1]
HARNESS = ROOT / "tests/cuda"
KERNELS = sorted((ROOT / "csrc/cuda").glob("*.cu"))
OPERATORS, TRIALS = (
    [ROOT / folder / f"{kernel.stem}.cpp" for kernel in KERNELS] for folder in ("csrc/torch", "tests/cpp")
)
BLOCKS, SUM_CHUNKS = HARNESS / "blocks.cpp", HARNESS / "sum_chunks.cpp"
NAMESPACE = "spherenet_fast_cuda_on_cpu"
# -O1 compiles in half the time of -O2; loops of kernels carry pragmas that only nvcc knows
FLAGS = ["-std=c++17", "-O1", "-g1", "-fPIC", "-Wall", "-Wno-unknown-pragmas", "-Wno-psabi"]
INCLUDES = ["-isystem", str(HARNESS / "include")]
SANITIZERS = {
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "thread": ["-fsanitize=thread"],
    None: [],
}


def compiler():
    return os.environ.get("CXX") or shutil.which("g++") or "c++"


def _make(target, *arguments):
    """Calls the compiler. Other processes find no file or the finished one."""
    unfinished = target.with_suffix(f".{os.getpid()}{target.suffix}")
    done = subprocess.run([*map(str, [compiler(), *arguments, "-o", unfinished])], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    unfinished.rename(target)


@cache
def _included(source):
    """A source and the project's headers that it takes, directly or not."""
    found, new = set(), {source.resolve(), *(HARNESS / "include").glob("*.h")}
    while new:
        found |= new
        named = {path.parent / name for path in new for name in re.findall(r'#include "(.+)"', path.read_text())}
        new = {path.resolve() for path in named} - found
    return sorted(found)


def _object(source, sanitizer, folder):
    """The object file of one source. What runs the blocks is never instrumented, but knows of the sanitizer."""
    flags = [*FLAGS, *INCLUDES, *SANITIZERS[sanitizer]]
    if source == BLOCKS:
        define = {"address": ["-DHARNESS_ASAN"], "thread": ["-DHARNESS_TSAN"], None: []}[sanitizer]
        flags = [*FLAGS, "-O2", *INCLUDES, *define]
    elif source not in KERNELS:
        flags += ["-DSPHERENET_FAST_CUDA_ON_CPU"]
    if source in (*OPERATORS, SUM_CHUNKS):
        flags += ["-fvisibility=hidden", f"-Dspherenet_fast={NAMESPACE}", "-DTORCH_TARGET_VERSION=0x020b000000000000"]
        flags += [flag for path in include_paths() for flag in ("-isystem", path)]
    version = subprocess.run([compiler(), "--version"], capture_output=True).stdout
    content = [path.read_bytes() for path in _included(source)]
    key = hashlib.sha256(b"\0".join([version, " ".join(flags).encode(), *content])).hexdigest()
    target = Path(folder) / f"{source.stem}-{key[:16]}.o"
    if not target.exists():
        _make(target, *flags, "-x", "c++", "-c", source)
    return target


def _objects(sources, sanitizer, folder):
    """Two compilers at a time. Another process that wants the same waits and finds it done."""
    with (Path(folder) / "lock").open("w") as lock, ThreadPoolExecutor(2) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return list(pool.map(lambda source: _object(source, sanitizer, folder), sources))


def build_library(folder):
    """The operators as a library for torch.ops, made in `folder` where it is not there yet."""
    objects = _objects([*OPERATORS, SUM_CHUNKS, *KERNELS, BLOCKS], None, folder)
    key = hashlib.sha256(" ".join(path.name for path in objects).encode()).hexdigest()
    target = Path(folder) / f"operators-{key[:16]}.so"
    if not target.exists():
        libraries = [*[f"-L{path}" for path in library_paths()], "-ltorch_cpu", "-lc10"]
        _make(target, "-shared", *objects, *libraries)
    return target


def operators(folder):
    """A second copy of `spherenet_fast.ops` over `build_library`, without the operators that have no CUDA kernel.

    It has the functions of the package, `compiled`, which are the operators themselves, and `sum_chunks`.
    """
    library = build_library(folder)
    package, loader, found = (ModuleType(f"{NAMESPACE}{name}") for name in ("", "._library", ".ops"))
    package.__path__, found.__path__ = [str(ROOT / "spherenet_fast")], [str(ROOT / "spherenet_fast/ops")]
    loader.NAMESPACE, loader.load = NAMESPACE, lambda: torch.ops.load_library(str(library))
    package._library, package.ops = loader, found
    sys.modules |= {module.__name__: module for module in (package, loader, found)}
    for kernel in KERNELS:
        module = import_module(f"{found.__name__}.{kernel.stem}")
        public = {name: value for name, value in vars(module).items() if isfunction(value) and name[0] != "_"}
        vars(found).update({name: value for name, value in public.items() if value.__module__ == module.__name__})
    found.compiled = getattr(torch.ops, NAMESPACE)
    return found


def build_program(name, sources, sanitizer, folder):
    """A program of `sources` and the blocks' runner, under a sanitizer or None."""
    target = Path(folder) / f"{name}-{sanitizer}"
    _make(target, *SANITIZERS[sanitizer], *_objects([*sources, BLOCKS], sanitizer, folder))
    return target


def run_program(program, *arguments):
    """The finished process; its text is in `stdout` and `stderr`."""
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # which ASan refuses
    command = [str(program), *arguments]
    options = dict(capture_output=True, text=True, env=environment)
    done = subprocess.run(command, **options)
    if "unexpected memory mapping" in done.stderr and shutil.which("setarch"):
        # ThreadSanitizer wants addresses that some kernels' randomization leaves
        done = subprocess.run(["setarch", "-R", *command], **options)
    return done
