"""What runs on a lent GPU, tried where there is none: bench/gpu.sh, its programs, the tests marked cuda."""

import csv
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spherenet_fast import _library

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "bench"
LACKING = ("ase", "vesin", "omegaconf", "lmdb", "nvalchemiops")


def gpu_sh(out, *arguments, script=BENCH / "gpu.sh", dry_run=False, **environment):
    command = ["bash", str(script), *["--dry-run"] * dry_run, str(out), *arguments]
    environment = os.environ | {"PYTHON": sys.executable} | environment
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)


def steps(out):
    with (out / "steps.csv").open(newline="") as file:
        return {row["step"]: int(row["status"]) for row in csv.DictReader(file)}


def test_a_dry_run_goes_through_every_step(tmp_path):
    """And none needs a package that the machine may lack."""
    tmp_path, lacking = tmp_path / "out", tmp_path / "lacking"
    lacking.mkdir()
    for name in LACKING:
        (lacking / f"{name}.py").write_text("raise ImportError('this machine lacks it')")
    done = gpu_sh(tmp_path, dry_run=True, PYTHONPATH=str(lacking))
    assert done.returncode == 0, done.stdout + done.stderr
    wanted = ["environment", "smoke", "tests", "tests-runtime", "ratios", "kernels", "memcheck"]
    assert steps(tmp_path) == dict.fromkeys(wanted, 0)
    assert {path.name for path in tmp_path.iterdir()} == {
        "log.txt", "steps.csv", "summary.txt", "kernels.txt", f"dry-run-{torch.get_num_threads()}-threads.csv"
    }  # fmt: skip
    log, summary = (tmp_path / "log.txt").read_text(), (tmp_path / "summary.txt").read_text()
    assert "ok" in log and "gated_sum, crowd, TF32" in log and "test_the_kernels_are_there PASSED" in log
    assert "dry run on the CPU" in summary and "ours / floor" in summary and "all steps passed" in summary
    assert "energy_and_forces_step" in (tmp_path / "kernels.txt").read_text()
    with next(tmp_path.glob("dry-run*.csv")).open(newline="") as file:
        rows = list(csv.DictReader(file))
    modes = {(row["case"], row["mode"]) for row in rows}
    procedures = {"qm9": "energy_step", "aspirin": "energy_and_forces_step", "aspirin-1": "energy_and_forces"}
    for case, mode in procedures.items():
        assert {(case, mode), (case, mode + "_replay"), (case, mode + "_captured")} <= modes
    assert ("gated_sum", "double_backward_replay") in modes and {row["device"] for row in rows} == {"dry run"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what it says where there is no GPU")
def test_the_script_stops_where_there_is_no_gpu(tmp_path):
    done = gpu_sh(tmp_path / "out")
    assert done.returncode == 1
    assert "expected a CUDA device" in done.stdout and "FAILED: environment" in done.stdout
    assert steps(tmp_path / "out") == {"environment": 1}
    for wrong in ([], ["--dry-run"], [str(tmp_path / "out"), "third"]):
        usage = subprocess.run(["bash", str(BENCH / "gpu.sh"), *wrong], capture_output=True, text=True)
        assert usage.returncode == 2 and "bench/gpu.sh OUT" in usage.stderr


@pytest.fixture
def stubbed(tmp_path):
    """The script in a tree of its own, over an interpreter that notes its arguments and ends as `ends` says."""
    script, stub = tmp_path / "tree/bench/gpu.sh", tmp_path / "python"
    script.parent.mkdir(parents=True)
    (script.parents[1] / "spherenet_fast").mkdir()
    library = script.parents[1] / "spherenet_fast/_C.abi3.so"
    library.touch()
    script.write_bytes((BENCH / "gpu.sh").read_bytes())

    def run(*arguments, ends="", **environment):
        """ends: bash's `case` patterns and what is done for them."""
        stub.write_text(f'#!/bin/bash\necho "$*" >>{tmp_path}/calls\ncase "$*" in\n{ends}\nesac\nexit 0\n')
        stub.chmod(stub.stat().st_mode | stat.S_IXUSR)
        done = gpu_sh(tmp_path / "out", *arguments, script=script, PYTHON=str(stub), **environment)
        return done, (tmp_path / "calls").read_text().splitlines(), steps(tmp_path / "out")

    run.library = library
    return run


def test_a_step_that_fails_does_not_stop_the_next(stubbed):
    # enough for five steps that do nothing on any machine; the one that sleeps has the rest
    done, calls, found = stubbed(
        ends="*bench.gpu.smoke*) exit 7 ;; *bench.gpu.kernel_times*) sleep 60 ;;", SECONDS_IN_ALL="8"
    )
    ended = {"environment": 0, "smoke": 7, "tests": 0, "tests-runtime": 0, "ratios": 0}
    assert found == ended | {"kernels": 124, "memcheck": 124}
    assert done.returncode == 1 and "FAILED: smoke (status 7)" in done.stdout and "no time left" in done.stdout
    assert stubbed.library.exists()  # it was of use
    assert not any("setup.py" in call for call in calls)


def test_a_slow_first_import_is_given_another_try(stubbed, tmp_path):
    slow = f"*bench.gpu.environment*) [[ -e {tmp_path}/read ]] || {{ touch {tmp_path}/read; exit 124; }} ;;"
    _, _, found = stubbed(ends=slow)
    assert list(found)[:3] == ["environment", "environment-again", "smoke"]
    assert [status for status in found.values()][:3] == [124, 0, 0]


def test_a_library_of_no_use_is_built_there(stubbed):
    of_no_use = f"*bench.gpu.environment*) [[ -e {stubbed.library} ]] && exit 3 ;;"
    done, calls, found = stubbed(ends=of_no_use, TORCH_CUDA_ARCH_LIST="9.0")
    assert found | {"memcheck": 0} == dict.fromkeys([*found, "memcheck"], 0) | {"environment": 3}
    assert list(found)[:4] == ["environment", "build", "library-built-here", "smoke"]
    assert "setup.py build_ext --inplace" in calls
    stubbed.library.touch()
    _, calls, found = stubbed(
        ends="*bench.gpu.environment*) exit 3 ;; *setup.py*) exit 1 ;;", TORCH_CUDA_ARCH_LIST="9.0"
    )
    assert found == {"environment": 3, "build": 1}


def test_the_second_call(stubbed):
    environment = dict(dry_run=True, TESTS="tests/cuda/test_cuda_device.py::test_every_operator", VARIANTS="a.so b.so")
    done, calls, found = stubbed("second", **environment)
    assert done.returncode == 0
    wanted = ["environment", "tests", "variants", "row-chains", "benchmarks", "ncu", "racecheck"]
    assert found == dict.fromkeys(wanted, 0)
    assert calls[1].endswith("--durations=10 tests/cuda/test_cuda_device.py::test_every_operator")
    assert calls[2].startswith("-m bench.gpu.compare_builds") and calls[2].endswith("a.so b.so")
    assert stubbed("second", dry_run=True)[2] == {name: 0 for name in found if name != "variants"}


def test_builds_against_each_other(tmp_path, monkeypatch, capsys):
    """One build is really run; another of other bits, and one that does not load, are made up."""
    from bench.gpu import compare_builds

    files = [tmp_path / name for name in ("first.so", "other.so", "broken.so")]
    files[0].symlink_to(_library.find_library(Path(_library.__file__).parent, sys.path))
    for file in files[1:]:
        file.touch()
    run_one, results = compare_builds.run_one, {}

    def once_for_real(variant, result, arguments):
        if variant.name == "broken.so":
            return None
        if not results:
            line = run_one(variant, result, arguments)
            results.update(line=line, tensors=torch.load(result))
        changes = {"aspirin forces": 1.5 * results["tensors"]["aspirin forces"]} if variant.name == "other.so" else {}
        torch.save(results["tensors"] | changes, result)
        return results["line"]

    monkeypatch.setattr(compare_builds, "run_one", once_for_real)
    command = ["compare_builds", "--device", "cpu", "--molecules", "1", "--replays", "1"]
    monkeypatch.setattr(sys, "argv", [*command, *map(str, [files[0], files[0], *files[1:]])])
    with pytest.raises(SystemExit, match=f"failed: {files[2]}"):
        compare_builds.main()
    output = capsys.readouterr().out
    assert output.count("aspirin energy_and_forces_step, ms") == 6  # three builds that load, in two turns
    assert f"{files[0]} and {files[0]}: the same bits" in output
    assert f"{files[1]} and {files[0]}: norms of the differences up to 5.0e-01 of the norm (aspirin forces)" in output
    assert any(name.startswith("qm9 update_es") for name in results["tensors"])
    monkeypatch.setattr(sys, "argv", [*command, "nowhere.so"])
    with pytest.raises(SystemExit):
        compare_builds.main()
    assert "LIBRARY: expected files, got nowhere.so" in capsys.readouterr().err


def test_the_tests_for_a_gpu_need_no_optional_package():
    """All of them are collected, and those that run on a CPU, too, are tried there."""
    program = f"""
import sys
for name in {LACKING}:
    sys.modules[name] = None
import pytest
tests = ["tests/cuda/test_cuda_device.py", "tests/cuda/test_cuda_device_runtime.py", "-m", "cuda"]
tests += ["-p", "no:cacheprovider"]
assert pytest.main([*tests, "--collect-only", "-qq"]) == 0
sys.exit(pytest.main([*tests, "-k", "kernels_are_there or (every_graph and periodic and odd) or captured_inference"]))
"""
    environment = os.environ | {"SPHERENET_FAST_TEST_DEVICE": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert re.search(r"tests/cuda/test_cuda_device.py: \d{3}\n", done.stdout), done.stdout[-2000:]
    assert re.search(r"\b[1-9]\d* passed", done.stdout) and "failed" not in done.stdout, done.stdout[-2000:]


def test_row_chains_are_measured_beside_their_layers():
    command = [sys.executable, "-m", "bench.gpu.row_chains", "--device", "cpu", "--rows", "20", "--replays", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        f"20 rows, {name}" for name in ("values", "values and gradients", "and second derivatives")
    ]
    # ten layers in float32, which rounds to 6e-8, twice differentiated
    assert all(float(line.split()[-1]) < 1e-4 for line in lines)
