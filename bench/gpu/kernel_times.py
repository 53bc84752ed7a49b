"""Where a recorded step's time goes: the kernels of some replays by the time that they take.

    python -m bench.gpu.kernel_times OUT [--device cpu --replays 1 --molecules 1]

Writes OUT/kernels.txt: for an energy step on molecules of QM9 and a step on energy and forces of aspirin, the 40
kernels that take longest, with launches and microseconds a replay, and how much of the time the GPU is busy. On the CPU
the step is called as it is, and the lines are torch's operators.
"""

import argparse
import time
from pathlib import Path

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from bench.speed.cases import model_call
from bench.speed.result_files import REPLAY
from bench.systems import aspirin, qm9

TOP = 40
STEPS = {"qm9": (qm9, 32, "energy_step"), "aspirin": (aspirin, 8, "energy_and_forces_step")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--replays", type=int, default=20)
    parser.add_argument("--molecules", type=int, help="32 of QM9 and 8 frames of aspirin unless given")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with (arguments.out / "kernels.txt").open("w") as file:
        for case, (system, size, procedure) in STEPS.items():
            data = system(arguments.molecules or size)
            call = model_call("ours", procedure + REPLAY, data, 7, arguments.device)
            lines = table_of(call, arguments.device, arguments.replays)
            for line in (f"{case}, {procedure}, {len(data.z)} atoms, {arguments.replays} replays", *lines, ""):
                print(line, flush=True)
                print(line, file=file, flush=True)


def table_of(call, device: str, replays: int) -> list[str]:
    on_gpu = torch.device(device).type == "cuda"
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    for _ in range(2 if on_gpu else 0):
        call()
    wait()
    start = time.perf_counter()
    for _ in range(replays):
        call()
    wait()
    wall = (time.perf_counter() - start) / replays * 1e6
    with profile(activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu) as profiler:
        for _ in range(replays):
            call()
        wait()
    where = DeviceType.CUDA if on_gpu else DeviceType.CPU
    rows = [event for event in profiler.key_averages() if event.device_type == where]
    times = {event.key: (event.self_device_time_total if on_gpu else event.self_cpu_time_total) for event in rows}
    total = max(sum(times.values()), 1e-9)
    rows.sort(key=lambda event: -times[event.key])
    found = [
        f"{wall:.0f} us a replay without the profiler; {total / replays:.0f} us in "
        f"{sum(event.count for event in rows) / replays:.0f} kernels",
        f"{'us':>9} {'share':>6} {'launches':>8}  kernel",
    ]
    for event in rows[:TOP]:
        share = 100 * times[event.key] / total
        found.append(f"{times[event.key] / replays:9.1f} {share:5.1f}% {event.count / replays:8.1f}  {event.key[:150]}")
    return found


if __name__ == "__main__":
    main()
