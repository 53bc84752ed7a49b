"""How many threads a training on the CPU takes."""

import time
from statistics import median

import lightning.pytorch as pl
import torch

TRIAL = 3  # steps
PERIOD = 500  # steps from one trial to the next
GAIN = 0.9  # one thread has to take less than this part of the time of all


class FasterThreads(pl.Callback):
    """All threads or one, whichever trains faster at the moment; the result is the same to the bit.

    Threads share every loop of a step and wait for each other at its end. Where something else runs on one of their
    cores, all wait for the one that has no core, and several are slower than one. So both are tried, a few steps each,
    after the first step and every so often.

    most: how many threads there are, at least 2.
    """

    def __init__(self, most: int):
        self.most = most
        self._left = 1  # steps before the next trial; the first one of a run takes longer than any
        self._pending: list[int] = []
        self._times: dict[int, list[float]] = {}
        self._began = 0.0

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if self._left == 0 and not self._pending:
            self._pending = [self.most] * TRIAL + [1] * TRIAL
            self._times = {self.most: [], 1: []}
        if self._pending:
            torch.set_num_threads(self._pending[0])
        self._began = time.perf_counter()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if not self._pending:
            self._left -= 1
            return
        self._times[self._pending.pop(0)].append(time.perf_counter() - self._began)
        if not self._pending:
            one, all_of_them = median(self._times[1]), median(self._times[self.most])
            torch.set_num_threads(1 if one < GAIN * all_of_them else self.most)
            self._left = PERIOD

    def on_train_end(self, trainer, module):
        torch.set_num_threads(self.most)
