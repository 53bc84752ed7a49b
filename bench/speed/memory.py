"""Peak memory of one call in a fresh process: the largest resident set during the call minus the one before it.

`python -m bench.speed.memory qm9 energy_step ours 32 --threads 2` prints bytes, or "oom".
"""

import argparse
import gc
import resource
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
OOM = "oom"
KILLED = -9  # by the kernel, which does so when the machine is out of memory


def peak_in_fresh_process(case: str, mode: str, provider: str, size: int, threads: int) -> int | None:
    """Bytes above the base, or None if there is not enough memory.

    size: molecules, frames or atoms, as in `cases.MODEL_CASES`.
    """
    command = [sys.executable, "-m", "bench.speed.memory", case, mode, provider, str(size), "--threads", str(threads)]
    process = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if process.returncode == KILLED:
        return None
    process.check_returncode()
    answer = process.stdout.split()[-1]
    return None if answer == OOM else int(answer)


def supported(device: str) -> bool:
    """Whether this module can measure: on GPUs, and on CPUs where Linux keeps the books."""
    return torch.device(device).type == "cuda" or (device == "cpu" and Path("/proc/self/clear_refs").exists())


def peak_on_gpu(call, device: str) -> int:
    """Bytes that torch's allocator hands out at most during a call, above what it had handed out before."""
    torch.cuda.synchronize(device)
    base = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - base


def limit_to_this_machine() -> None:
    """Let an allocation beyond the machine's free memory fail, instead of the kernel end some process."""
    if not Path("/proc/meminfo").exists():
        return
    available = kilobytes("/proc/meminfo", "MemAvailable:")
    limit = 1024 * (kilobytes("/proc/self/status", "VmSize:") + available)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def is_out_of_memory(error: Exception) -> bool:
    """torch's allocator for CPUs, and C++'s, raise RuntimeError with nothing but the text to tell."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return any(text in str(error) for text in ("can't allocate memory", "not enough memory", "std::bad_alloc"))


def kilobytes(path: str, field: str) -> int:
    """A number of one of the kernel's tables, all of which are in kB."""
    return next(int(line.split()[1]) for line in Path(path).read_text().splitlines() if line.startswith(field))


def _peak(case: str, mode: str, provider: str, size: int) -> int:
    from bench.speed.cases import MODEL_CASES, ethanol, model_call

    system, _, num_spherical, _ = MODEL_CASES[case]
    model_call(provider, mode, ethanol(1), num_spherical, "cpu")()  # loads libraries, starts threads
    call = model_call(provider, mode, system(size), num_spherical, "cpu")
    return peak_of(call)


def peak_of(call) -> int:
    """Bytes above the present size that this process reaches during a call, where `supported`."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again at the present size
    base = kilobytes("/proc/self/status", "VmRSS:")
    call()
    return 1024 * (kilobytes("/proc/self/status", "VmHWM:") - base)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("case", "mode", "provider"):
        parser.add_argument(name)
    parser.add_argument("size", type=int)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    limit_to_this_machine()
    try:
        print(_peak(arguments.case, arguments.mode, arguments.provider, arguments.size))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        print(OOM)


if __name__ == "__main__":
    main()
