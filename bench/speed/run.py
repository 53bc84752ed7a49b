"""Measures everything and writes one result file per device: `python -m bench.speed.run`.

What the cases, providers and numbers mean is said in bench/README.md. `python -m bench.speed.report` makes the tables.
"""

import argparse
import gc
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from bench import machine
from bench.providers import models
from bench.speed import launches, memory, report, result_files
from bench.speed.cases import CASES, MODEL_CASES, ON_GPU, PROVIDERS, Call, Workload, make_model, workloads
from bench.tables import Row
from spherenet_fast import keep_freed_memory

SLOW = 5.0  # seconds: a call that takes longer is measured once, cold
# ten times slower than the others, or take 15 s and more to build
NOT_QUICK = ("reference", "dig_spherenet", "pyg_dimenet++", "pyg_dimenet")
SLOW_PROCESS = 8.0  # seconds: a measurement of memory that takes longer is done once
DRY_RUN = "dry run"  # in the column of the device
SCALES = {"ms": 1e3, "ns/edge": 1e9, "ns/triplet": 1e9}


def main() -> None:
    arguments = parse()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.device == "cpu":
        memory.limit_to_this_machine()
        keep_freed_memory()
    environment = machine.environment(arguments.device)
    if arguments.dry_run:
        environment["device"] = DRY_RUN
    rows, failures = [], []
    for case in arguments.cases:
        found = []
        what = case
        try:
            for workload in workloads(case, arguments.providers, arguments.device, arguments.quick, arguments.dry_run):
                what = f"{workload.case} {workload.mode} {workload.x}"
                try:
                    found += measure(
                        workload, arguments.device, arguments.quick, environment, arguments.budget, arguments.dry_run
                    )
                except Exception:  # what else can be measured is
                    failures.append(what)
                    traceback.print_exc()
                if not arguments.dry_run:
                    gc.collect()
        except Exception:  # in making a workload: the other cases go on
            failures.append(f"what follows {what}")
            traceback.print_exc()
        if arguments.out is not None:
            result_files.update(arguments.out / result_files.file_name(environment, arguments.device), found, CASES)
        rows += found
    print("\n" + report.ratios(rows))
    if failures:
        sys.exit(f"{len(failures)} of the measurements failed: {', '.join(failures)}")


def parse() -> argparse.Namespace:
    available = [name for name in PROVIDERS if not models.missing(name)]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu, or another of torch's devices")
    parser.add_argument(
        "--cases", nargs="+", choices=CASES, metavar="CASE",
        help=f"{', '.join(CASES)}; all by default, {', '.join(ON_GPU)} on a GPU alone",
    )  # fmt: skip
    parser.add_argument(
        "--providers", nargs="+", choices=PROVIDERS, metavar="PROVIDER",
        help=f"{', '.join(PROVIDERS)}; what is installed by default, but --quick leaves out {' and '.join(NOT_QUICK)}",
    )  # fmt: skip
    budget = "seconds for the repetitions of a line; 12, or 1 if --quick or on a GPU"
    parser.add_argument("--budget", type=float, help=budget)
    parser.add_argument("--threads", type=int, help="torch's default if not given")
    dry_run = "what is measured on a GPU, on any device, once and in the least size: numbers without meaning"
    parser.add_argument("--dry-run", action="store_true", help=dry_run)
    quick = "few repetitions, fewer sizes; writes no file unless --out is given"
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--out", type=Path, help="folder of the result file; bench/results/speed by default")
    arguments = parser.parse_args()
    if arguments.dry_run and arguments.out is None:
        parser.error("--dry-run: expected --out beside it, a folder for numbers without meaning, got none")
    if arguments.threads is not None and arguments.threads < 1:
        parser.error(f"--threads: expected at least 1, got {arguments.threads}")
    for name in arguments.providers or ():
        if absent := models.missing(name):
            parser.error(f"--providers: {name} needs {' and '.join(absent)}, not installed here")
    on_gpu = torch.device(arguments.device).type == "cuda"
    if on_gpu and not torch.cuda.is_available():
        parser.error(f"--device: expected one that is there, got {arguments.device} without a CUDA device")
    if arguments.cases is None:
        arguments.cases = [case for case in CASES if on_gpu or case not in ON_GPU]
    if arguments.budget is None:
        arguments.budget = 1.0 if arguments.quick or on_gpu else 12.0
    if arguments.providers is None:
        arguments.providers = [name for name in available if not (arguments.quick and name in NOT_QUICK)]
    if arguments.out is None and not arguments.quick:
        arguments.out = result_files.RESULTS
    return arguments


def measure(
    workload: Workload, device: str, quick: bool, environment: Row, budget: float = 12.0, once: bool = False
) -> list[Row]:
    """The rows of one workload, printed as they come. Its calls are let go at the end, with all that they hold."""
    least, most = (2, 10) if quick else (3, 50)
    times, calls = interleaved(workload.prepare, device, budget, least, most, 0.0 if once else SLOW)
    rows = []

    def add(provider: str, metric: str, unit: str, values: list[float] | None) -> None:
        digits = ".0f" if metric in ("parameters", "kernels") else ".4g"
        numbers = [f"{v:{digits}}" for v in np.percentile(values, [50, 20, 80])] if values else [memory.OOM, "", ""]
        measured = workload.case, provider, workload.mode, metric, unit, str(workload.x), *numbers
        rows.append(dict(zip(result_files.COLUMNS, measured)) | environment)
        what = f"{workload.case:18} {workload.mode:23} {workload.x:5d} atoms"
        print(f"{what}  {provider:14} {numbers[0]:>8} {unit}", flush=True)

    scale = SCALES[workload.unit] / workload.per
    for provider, values in times.items():
        add(provider, "time", workload.unit, values and [scale * value for value in values])
    for provider in workload.parameters:
        model = make_model(provider, MODEL_CASES[workload.case][2], device)
        add(provider, "parameters", "", [sum(p.numel() for p in model.parameters())])
    if workload.case in MODEL_CASES and workload.mode in launches.PASSES and "ours" in times and not once:
        add("ours", "kernels", "", [launches.kernels(workload.mode).total()])
    for provider in workload.memory if memory.supported(device) else []:
        if torch.device(device).type == "cuda":
            call = calls[provider]
            peak = call and unless_out_of_memory(lambda call=call: memory.peak_on_gpu(call, device))
            add(provider, "memory", "MB", None if peak is None else [peak / 1e6])
        else:
            add(provider, "memory", "MB", megabytes(workload, provider, quick))
    return rows


def megabytes(workload: Workload, provider: str, quick: bool) -> list[float] | None:
    """Peak memory in three fresh processes, or in one where quick or slow; None if there is not enough."""
    peaks = []
    for _ in range(3):
        start = time.perf_counter()
        peak = memory.peak_in_fresh_process(
            workload.case, workload.mode, provider, workload.size, torch.get_num_threads()
        )
        if peak is None:
            return None
        peaks.append(peak / 1e6)
        if quick or time.perf_counter() - start > SLOW_PROCESS:
            break
    return peaks


def interleaved(
    prepare: dict[str, Callable[[], Call]], device: str, budget: float, least: int, most: int, patience: float = SLOW
) -> tuple[dict[str, list[float] | None], dict[str, Call | None]]:
    """Seconds of every repetition of every provider's call, or None where it ran out of memory; and the calls.

    Each call runs twice to warm up. Then the calls take turns, so that a slow spell of the machine meets all of them;
    `budget` seconds are shared equally, with `least` to `most` repetitions each. A call of more than `patience` seconds
    is measured once, cold.
    """
    calls, times, repetitions = {}, {}, {}
    for name, make in prepare.items():
        calls[name] = unless_out_of_memory(make)
        first = seconds(calls[name], device)
        slow = first is not None and first > patience
        second = first if slow else seconds(calls[name], device)
        times[name] = None if second is None else [first] if slow else []
        repetitions[name] = 0 if second is None or slow else clamp(budget / len(prepare) / second, least, most)
    for turn in range(max(repetitions.values())):
        for name, call in calls.items():
            if turn < repetitions[name] and times[name] is not None:
                value = seconds(call, device)
                times[name] = None if value is None else [*times[name], value]
    return times, calls


def clamp(value: float, least: int, most: int) -> int:
    return round(min(max(value, least), most))


def seconds(call: Call | None, device: str) -> float | None:
    """How long a call takes, on a GPU between two of its events; None if it runs out of memory or there is none."""
    if call is None:
        return None
    if torch.device(device).type != "cuda":
        start = time.perf_counter()
        done = unless_out_of_memory(lambda: (call(),))
        return time.perf_counter() - start if done else None
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    done = unless_out_of_memory(lambda: (start.record(), call(), end.record(), torch.cuda.synchronize(device)))
    return start.elapsed_time(end) / 1e3 if done else None


def unless_out_of_memory(function: Call) -> object:
    """function(), or None if the memory does not suffice."""
    try:
        return function()
    except (RuntimeError, MemoryError) as error:
        if not memory.is_out_of_memory(error):
            raise
        return None


if __name__ == "__main__":
    main()
