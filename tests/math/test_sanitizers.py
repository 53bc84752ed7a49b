"""The CPU kernels under AddressSanitizer and UndefinedBehaviorSanitizer, without torch: cpp/test_kernels.cpp."""

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [path for folder in ("csrc/cpu", "tests/cpp") for path in sorted((ROOT / folder).glob("*.cpp"))]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
# -O0: half the time to compile, and nothing is optimized away before the sanitizers see it; -g1: lines for the reports
FLAGS = ["-std=c++17", "-O0", "-g1", *SANITIZERS]


def compile_all(folder):
    """The program, from one object file for each source, two compilers at a time."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or "c++"

    def run(*arguments):
        done = subprocess.run([compiler, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-4000:]

    def compile_one(source):
        target = folder / f"{source.parent.name}-{source.stem}.o"
        run(*FLAGS, "-c", str(source), "-o", str(target))
        return str(target)

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, SOURCES))
    run(*SANITIZERS, *objects, "-o", str(folder / "test_kernels"))
    return folder / "test_kernels"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return compile_all(tmp_path_factory.mktemp("sanitizers"))


def test_kernels_are_clean(program):
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # which ASan refuses
    done = subprocess.run([program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert "baseline: passed" in done.stdout
    assert done.stdout.count("passed") + done.stdout.count("not on this processor") == 3
