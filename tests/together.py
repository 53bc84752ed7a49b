"""Trainings of two processes, their ends and how they go on: `python together.py FOLDER` makes the runs of SCENES.

One process forks them all, so that the imports are paid for once. Prints how the processes of every run ended, and how
long it took, as JSON.
"""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from training_runs import before_step, tiny_config

from spherenet_fast.training import run
from spherenet_fast.training.callbacks.signals import Interrupted
from spherenet_fast.training.module import TrainingModule

STEPS, KILLED_AT = 12, 8  # checkpoints are of steps 5, 10 and 12


def environment(launcher: str, rank: int, port: int) -> dict[str, str]:
    """What a process of two finds in its environment."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if launcher == "torchrun":
        numbers = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
        return meeting | {name: str(number) for name, number in numbers.items()} | {"TORCHELASTIC_RUN_ID": "7"}
    if launcher == "srun":
        numbers = {"PROCID": rank, "LOCALID": rank, "NODEID": 0, "NTASKS": 2, "STEP_NUM_TASKS": 2, "NTASKS_PER_NODE": 2}
        return meeting | {f"SLURM_{name}": str(number) for name, number in numbers.items()}
    return meeting | {"LOCAL_RANK": str(rank)}


def config(folder: Path, processes=2, **changes):
    """Batches of 4 in all, of molecules of which some have no forces or another number of atoms than others."""
    values = {"data__source": folder / "data.extxyz", "data__units": "{energy: eV}", "data__train": 18, "data__val": 5}
    values |= {"data__test": 5, "model__hidden_channels": 32, "training__max_steps": STEPS}  # wide enough for Muon
    values |= {"training__devices": processes, "training__batch_size": 4 // processes}
    values |= {"training__augment_reflections": True, "model__torsion": "smooth", "optimizer__gradient_clip": 5.0}
    return tiny_config(**values | changes)


def data(path: Path) -> None:
    """28 molecules of 2 to 9 atoms; every fifth has an energy alone."""
    draw, frames = np.random.default_rng(0), []
    grid = np.stack(np.meshgrid(*[range(3)] * 3), -1).reshape(-1, 3) * 1.2
    for number in range(28):
        count = int(draw.integers(2, 10))
        place = grid[draw.permutation(27)[:count]] + draw.uniform(-0.1, 0.1, (count, 3))
        frame = Atoms(numbers=draw.choice([1, 6, 8], count), positions=place)
        forces = {} if number % 5 == 0 else {"forces": draw.normal(size=(count, 3))}
        frame.calc = SinglePointCalculator(frame, energy=draw.normal() - count, **forces)
        frames.append(frame)
    write(path, frames)


def life(deed, launcher: str, rank: int, port: int) -> int:
    """The number of a child that does `deed(rank)`; its exit code is that of the command line."""
    child = os.fork()
    if child:
        return child
    os.environ |= environment(launcher, rank, port) if launcher else {}
    code = 1
    try:
        deed(rank)
        code = 0
    except Interrupted as stop:
        code = 128 + stop.signum
    except ConnectionError as error:
        print(error, file=sys.stderr)
        code = 2
    except SystemExit as stop:
        code = stop.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ends(deed, launcher: str = "ours") -> list[int]:
    """The exit codes of two processes, less than 0 for a signal; of one where `launcher` is ""."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [life(deed, launcher, rank, port) for rank in range(2 if launcher else 1)]
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


class Patch:
    """What `before_step` needs of pytest's monkeypatch, in a process that ends."""

    setattr = staticmethod(setattr)


def stopped(folder: Path, out: Path, victim: int, number: int, step: int = KILLED_AT):
    """A deed: train until the process `victim` sends itself a signal."""

    def deed(rank: int) -> None:
        if rank == victim:
            before_step(Patch, step, lambda: os.kill(os.getpid(), number))
        run.train_to_the_end(config(folder), out)

    return deed


def by_the_clock(folder: Path, out: Path):
    """A deed: train for a tenth of a minute, by a clock that the steps move, three times faster in the second process.

    Where the weights differ between the processes, saving fails.
    """

    def deed(rank: int) -> None:
        TrainingModule.minutes = lambda self: 0.01 * (self.global_step + 1) * (1 + 2 * rank)
        limits = {"training__max_steps": None, "training__max_time": 0.1, "optimizer__ema_decay": None}
        plain = TrainingModule.on_save_checkpoint

        def saving(self, checkpoint):
            plain(self, checkpoint)
            weights = torch.cat([weight.detach().flatten() for weight in self.potential.model.parameters()])
            assert self.processes.gathered(weights.tolist()).diff(dim=0).abs().max() == 0

        TrainingModule.on_save_checkpoint = saving
        run.train_to_the_end(config(folder, **limits), out)

    return deed


def scenes(folder: Path) -> dict[str, tuple]:
    """{folder of a run: the deeds that make it, each with how its processes are started}."""

    def trained(name: str, resume: bool = False, processes: int = 2, **changes):
        return lambda rank: run.train_to_the_end(config(folder, processes, **changes), folder / name, resume)

    return {
        "one": ((trained("one", processes=1), ""),),
        "two": ((trained("two"), "torchrun"),),
        "stopped": (
            (stopped(folder, folder / "stopped", 1, signal.SIGTERM), "srun"),
            (trained("stopped", resume=True), "ours"),
        ),
        "killed": (
            (stopped(folder, folder / "killed", 1, signal.SIGKILL), "ours"),
            (trained("killed", resume=True), "ours"),
        ),
        "first killed": (
            (stopped(folder, folder / "first killed", 0, signal.SIGKILL), "ours"),
            (trained("first killed", resume=True, processes=1), ""),
        ),
        "clock": ((by_the_clock(folder, folder / "clock"), "ours"),),
        "edges": ((trained("edges", training__max_edges=120), "ours"),),
    }


if __name__ == "__main__":
    folder, found = Path(sys.argv[1]), {}
    run.plot_learning_curve = lambda *arguments: None  # takes longer than these runs
    data(folder / "data.extxyz")
    for name, deeds in scenes(folder).items():
        began = time.monotonic()
        found[name] = [ends(*deed) for deed in deeds], time.monotonic() - began
    print(json.dumps(found))
