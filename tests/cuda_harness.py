"""Builds the CUDA kernels for the CPU: csrc/cuda/*.cu as C++ over the stand-in of cuda_runtime.h in tests/cuda/include.

Object files are kept from one test run to the next, under names that say what went into them.
"""

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pybind11

ROOT = Path(__file__).parents[1]
HARNESS = ROOT / "tests/cuda"
KERNELS = sorted((ROOT / "csrc/cuda").glob("*.cu"))
BLOCKS = HARNESS / "blocks.cpp"
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


def _run(*arguments):
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]


def _headers():
    folders = [ROOT / "csrc", HARNESS, ROOT / "tests/cpp"]
    return b"".join(path.read_bytes() for folder in folders for path in sorted(folder.rglob("*.h")))


def _object(source, sanitizer, folder, headers):
    """The object file of one source. What runs the blocks is never instrumented, but knows of the sanitizer."""
    flags = [*FLAGS, *INCLUDES, *SANITIZERS[sanitizer]]
    if source == BLOCKS:
        define = {"address": ["-DHARNESS_ASAN"], "thread": ["-DHARNESS_TSAN"], None: []}[sanitizer]
        flags = [*FLAGS, "-O2", *INCLUDES, *define]
    elif "bindings" in source.name:
        flags += ["-isystem", pybind11.get_include(), "-isystem", sysconfig.get_paths()["include"]]
        flags += ["-fvisibility=hidden"]
    version = subprocess.run([compiler(), "--version"], capture_output=True).stdout
    key = hashlib.sha256(b"\0".join([version, " ".join(flags).encode(), headers, source.read_bytes()])).hexdigest()
    target = Path(folder) / f"{source.stem}-{key[:16]}.o"
    if not target.exists():
        unfinished = target.with_suffix(f".{os.getpid()}.o")
        _run(compiler(), *flags, "-x", "c++", "-c", source, "-o", unfinished)
        unfinished.rename(target)
    return target


def _objects(sources, sanitizer, folder):
    """Two compilers at a time. Another process that wants the same waits and finds it done."""
    headers = _headers()
    with (Path(folder) / "lock").open("w") as lock, ThreadPoolExecutor(2) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return list(pool.map(lambda source: _object(source, sanitizer, folder, headers), sources))


def build_module(folder):
    """The launchers as a Python module, made in `folder` where it is not there yet."""
    objects = _objects([*sorted(HARNESS.glob("bindings*.cpp")), *KERNELS, BLOCKS], None, folder)
    key = hashlib.sha256(" ".join(path.name for path in objects).encode()).hexdigest()
    target = Path(folder) / f"kernels-{key[:16]}.so"
    if not target.exists():
        unfinished = target.with_suffix(f".{os.getpid()}.so")
        _run(compiler(), "-shared", *objects, "-o", unfinished)
        unfinished.rename(target)
    spec = importlib.util.spec_from_file_location("kernels", target)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build_program(name, sources, sanitizer, folder):
    """A program of `sources` and the blocks' runner, under a sanitizer or None."""
    target = Path(folder) / f"{name}-{sanitizer}"
    _run(compiler(), *SANITIZERS[sanitizer], *_objects([*sources, BLOCKS], sanitizer, folder), "-o", target)
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
