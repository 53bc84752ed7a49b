"""Trains in child processes that are killed at chosen moments: `python killed_runs.py FOLDER MOMENT ...`.

One process forks them all, so that the imports are paid for once. Prints how often a child ended by itself.
"""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from training_runs import tiny_config

from spherenet_fast import _files
from spherenet_fast.training import train
from spherenet_fast.training.callbacks import logs
from spherenet_fast.training.module import TrainingModule

STEPS = 24


def config():
    return tiny_config(training__max_steps=STEPS, training__val_every=2, training__log_every=3, data__test=1)


def countdown(moment: int):
    """A function that makes others die: the process gets SIGKILL at the `moment`-th call of any of them.

    last_deed: what is done before, with the arguments of the call.
    """
    left = [moment]

    def before(function, last_deed=lambda *arguments: None):
        def counted(*arguments, **named):
            left[0] -= 1
            if left[0] == 0:
                last_deed(*arguments)
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return counted

    return before


def half_of_the_row(path, line):
    with open(path, "ab") as file:
        file.write(line[: len(line) // 2])


def die_at(moment: int) -> None:
    """SIGKILL at the `moment`-th of: a step, a row of metrics half written, and what is done to files.

    Of a file that is being flushed only a half has arrived.
    """
    before = countdown(moment)

    def half_of_the_file(descriptor):
        with suppress(OSError):  # a folder, or a file that is only read
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)

    TrainingModule.training_step = before(TrainingModule.training_step)
    logs.append_line = before(logs.append_line, half_of_the_row)
    _files.os.fsync = before(os.fsync, half_of_the_file)
    _files.os.replace = before(os.replace)


def life(deeds) -> int:
    """How a child ends that does `deeds`: its wait status."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            deeds()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


def training_life(out: Path, moment: int) -> int:
    """Of a child that trains in `out`, going on where the last one stopped."""

    def deeds():
        die_at(moment)
        train(config(), out, resume=out.exists())

    return life(deeds)


if __name__ == "__main__":
    statuses = [training_life(Path(sys.argv[1]), int(moment)) for moment in sys.argv[2:]]
    assert set(statuses) <= {0, signal.SIGKILL}, statuses
    print(statuses.count(0))
