"""What the assembler of CUDA says of each kernel: registers, stack frame, spilled registers.

As a program it prints the table for the files given, or for all of csrc/cuda: python tests/ptxas.py [file.cu ...]
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "csrc/cuda").glob("*.cu"))
ARCHITECTURES = (80, 90, 100, 120)
FLAGS = ["-O3", "-std=c++17", "-lineinfo", "-Xptxas=-v", "-cubin"]  # optimized as in setup.py


class Kernel(NamedTuple):
    name: str  # with its template arguments
    architecture: int
    registers: int
    stack: int  # bytes a thread, as are the spills
    spill_stores: int
    spill_loads: int


def nvcc():
    """The path of a CUDA toolkit's compiler, or None. A script of that name on PATH may stand for another folder."""
    found = shutil.which("nvcc")
    homes = [os.environ.get("CUDA_HOME"), "/usr/local/cuda", found and Path(found).resolve().parents[1]]
    for home in filter(None, homes):
        if (Path(home) / "bin/nvcc").exists() and (Path(home) / "include/cuda_runtime.h").exists():
            return str(Path(home) / "bin/nvcc")
    return None


def report(source):
    """The kernels [list of Kernel] of one file, for each of the architectures."""

    def one(architecture):
        with tempfile.TemporaryDirectory() as folder:
            target = ["-arch", f"sm_{architecture}", "-o", f"{folder}/kernels.cubin"]
            done = subprocess.run([nvcc(), *FLAGS, *target, str(source)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-4000:]
        return _kernels(done.stdout + done.stderr, architecture)

    with ThreadPoolExecutor(2) as pool:
        return sum(pool.map(one, ARCHITECTURES), [])


def assembly(source, architecture):
    """The PTX of one file."""
    command = [nvcc(), *FLAGS[:-2], "-ptx", f"-arch=sm_{architecture}", "-o", "-", str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def _kernels(text, architecture):
    """A kernel's functions that are not inlined have lines of their own, which count as the kernel's."""
    found = []
    for part in text.split("Compiling entry function")[1:]:
        (name,) = re.match(r" '(\w+)'", part).groups()
        properties = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part)
        worst = [max(map(int, column)) for column in zip(*properties, strict=True)]
        found.append(Kernel(name, architecture, int(re.search(r"Used (\d+) registers", part)[1]), *worst))
    names = _demangled([kernel.name for kernel in found])
    return [kernel._replace(name=name) for kernel, name in zip(found, names, strict=True)]


def _demangled(names):
    """`kernel<template arguments>`, without namespaces and parameters; as it is where c++filt is missing."""
    if not shutil.which("c++filt"):
        return names
    done = subprocess.run(["c++filt", "-p", *names], capture_output=True, text=True, check=True)
    return [re.sub(r"\w+::|\(anonymous namespace\)::|^void ", "", line) for line in done.stdout.splitlines()]


if __name__ == "__main__":
    for path in [Path(argument) for argument in sys.argv[1:]] or SOURCES:
        for kernel in report(path):
            memory = f"stack {kernel.stack}, spills {kernel.spill_stores}/{kernel.spill_loads}"
            print(f"sm_{kernel.architecture} {kernel.registers:4} registers, {memory}: {kernel.name}")
