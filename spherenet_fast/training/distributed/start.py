"""How the processes of a training are started and find each other.

torchrun or SLURM start them, or else the first process does, by its own command line.
"""

import atexit
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from lightning.pytorch.plugins.environments import SLURMEnvironment

from ..config.sections import TrainingConfig
from .processes import Processes

MEET = timedelta(minutes=10)  # for all processes to be there
ANSWER = timedelta(minutes=30)  # until a process that lives, but says nothing, counts as lost
LAST_WORDS = 20.0  # seconds, for processes to end when the first one does

_all: Processes | None = None  # of this process, for all of its trainings: a process group is made once


def processes_of(config: TrainingConfig) -> Processes:
    """The processes that train as `config` says; they meet here, and those that nobody has started are started.

    With torchrun and SLURM's srun they are there. Else the first process of each machine (there are several where
    MASTER_ADDR, MASTER_PORT and NODE_RANK say so) starts the others by its own command line, so that they come here,
    too.

    Raises:
        ValueError: torchrun or srun has started another number of processes, or there are too few GPUs, or the command
            cannot be repeated.
        ConnectionError: a process ended before all were there, or they do not find each other.
    """
    global _all
    count = config.devices * config.num_nodes
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _check("torchrun", "WORLD_SIZE", count, "training.devices x training.num_nodes")
        _check("torchrun", "LOCAL_WORLD_SIZE", config.devices, "training.devices")
    if count == 1:
        return Processes()
    if _all is None:
        _all = _met(config, count)
    elif _all.count != count:
        raise ValueError(f"training.devices x training.num_nodes: expected {_all.count}, as before, got {count}")
    return _all


def _met(config: TrainingConfig, count: int) -> Processes:
    on_gpus = config.device != "cpu" and torch.cuda.is_available()
    if on_gpus and torch.cuda.device_count() < config.devices:
        raise ValueError(
            f"training.devices: expected at most the {torch.cuda.device_count()} GPUs here, got {config.devices}"
        )
    backend = "cpu:gloo,cuda:nccl" if on_gpus else "gloo"
    if "TORCHELASTIC_RUN_ID" in os.environ:
        processes = Processes(_number("RANK"), count, _number("LOCAL_RANK"))
        with _unreachable():
            dist.init_process_group(backend, timeout=ANSWER)
    else:
        of_slurm = _number("SLURM_STEP_NUM_TASKS", 1) > 1  # in a script without srun there is one process
        processes, address, port = _of_slurm(count) if of_slurm else _of_this_package(config, count)
        with _unreachable():
            store = dist.TCPStore(address, port, count, processes.is_first, timeout=MEET, wait_for_workers=False)
        starts = not of_slurm and "LOCAL_RANK" not in os.environ
        _wait_for_all(store, processes, _start(config.devices, address, store.port) if starts else [])
        with _unreachable():
            dist.init_process_group(backend, store=store, rank=processes.rank, world_size=count, timeout=ANSWER)
    if on_gpus:
        torch.cuda.set_device(processes.local_rank)
        atexit.register(dist.destroy_process_group)  # NCCL warns of one that is left
    return processes


def _of_slurm(count: int) -> tuple[Processes, str, int]:
    """A task of srun, the address of the first one's machine, and the port that Lightning derives from the job."""
    _check("srun", "SLURM_STEP_NUM_TASKS", count, "training.devices x training.num_nodes")
    try:
        environment = SLURMEnvironment()
    except RuntimeError as error:  # settings of srun that Lightning does not take
        raise ValueError(f"training.devices: {error}") from error
    processes = Processes(environment.global_rank(), count, environment.local_rank())
    return processes, environment.main_address, environment.main_port


def _of_this_package(config: TrainingConfig, count: int) -> tuple[Processes, str, int]:
    """The process that a command is, or another one that such a process has started."""
    node, local = _number("NODE_RANK", 0), _number("LOCAL_RANK", 0)
    address, port = os.environ.get("MASTER_ADDR", "127.0.0.1"), _number("MASTER_PORT", 0)
    if config.num_nodes > 1 and not ("MASTER_ADDR" in os.environ and port):
        raise ValueError(
            "training.num_nodes: expected torchrun, srun, or MASTER_ADDR, MASTER_PORT and NODE_RANK in the environment "
            f"of every node where it is above 1, got {config.num_nodes}"
        )
    sharers = 1 if "OMP_NUM_THREADS" in os.environ else config.devices
    return Processes(node * config.devices + local, count, local, sharers), address, port


def _start(devices: int, address: str, port: int) -> list[subprocess.Popen]:
    """Start the other processes of this machine, by the command line of this one; they end with it."""
    if hasattr(sys, "ps1") or "ipykernel" in sys.modules or len(sys.orig_argv) < 2:
        raise ValueError(f"training.devices: expected 1 in an interactive session, which is no script, got {devices}")
    command = [sys.executable, *sys.orig_argv[1:]]
    shared = os.environ | {"MASTER_ADDR": address, "MASTER_PORT": str(port)}
    others = [subprocess.Popen(command, env=shared | {"LOCAL_RANK": str(rank)}) for rank in range(1, devices)]
    atexit.register(_end, others)
    return others


def _end(processes: list[subprocess.Popen]) -> None:
    """Wait for processes that end by themselves, as all do when another one is gone, and kill those that do not."""
    deadline = time.monotonic() + LAST_WORDS
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def _wait_for_all(store: dist.TCPStore, processes: Processes, started: list[subprocess.Popen]) -> None:
    """Wait until all processes have come to `store`. Raises ConnectionError if that cannot be any more."""
    deadline = time.monotonic() + MEET.total_seconds()
    with _unreachable():
        store.add("here", 1)
        while (here := store.add("here", 0)) < processes.count:
            ended = [process.returncode for process in started if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                for process in started:
                    process.terminate()
                why = f"one ended with exit code {ended[0]}" if ended else f"no other came within {MEET}"
                raise ConnectionError(f"training.devices: expected {processes.count} processes, got {here}: {why}")
            time.sleep(0.02)


@contextmanager
def _unreachable() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConnectionError(f"training.devices: the processes do not find each other: {reason}") from error


def _number(variable: str, default: int | None = None) -> int:
    """A number in the environment."""
    text = os.environ.get(variable, default)
    try:
        return int(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(f"{variable}: expected a number in the environment, got {text!r}") from None


def _check(launcher: str, variable: str, count: int, key: str) -> None:
    """ValueError unless a launcher has started as many processes as the config says."""
    if (came := _number(variable, count)) != count:
        raise ValueError(f"{key}: expected {came}, as {launcher} has started so many processes, got {count}")
