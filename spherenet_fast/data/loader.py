"""Loaders whose order depends on nothing but the seed and the step."""

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from .molecules import Molecules


class ShuffledBatches(Sampler):
    """An endless stream of shuffled batches: the batch of a step is a function of (seed, step) alone.

    Every epoch visits the molecules in an order drawn from (seed, epoch) and leaves out the few that do not fill a
    last batch. A resumed run starts at its step and sees what an uninterrupted one would have seen.

    Args:
        indices: [M] molecules to draw from, at least one.
        batch_size: molecules per batch (at most M are used).
        seed: of the order.
        start: the step of the first batch.
    """

    def __init__(self, indices: Tensor, batch_size: int, seed: int, start: int = 0):
        if len(indices) == 0:
            raise ValueError("data.train: expected at least 1 training molecule, got 0")
        self.indices = indices
        self.batch_size = min(batch_size, len(indices))
        self.seed = seed
        self.start = start

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one pass over the molecules."""
        return len(self.indices) // self.batch_size

    def order(self, epoch: int) -> Tensor:
        """The molecules in the order of `epoch`: [M] int64."""
        shuffled = np.random.default_rng((self.seed, epoch)).permutation(len(self.indices))
        return self.indices[torch.from_numpy(shuffled)]

    def __iter__(self):
        epoch, step = divmod(self.start, self.steps_per_epoch)
        while True:
            order = self.order(epoch)
            for position in range(step, self.steps_per_epoch):
                yield order[position * self.batch_size : (position + 1) * self.batch_size]
            epoch, step = epoch + 1, 0


def _unchanged(batch):
    return batch


def training_loader(molecules: Molecules, batches: ShuffledBatches, pin_memory: bool = False) -> DataLoader:
    """Endless batches of `molecules`, collated in the calling process: one gather is faster than a queue."""
    return DataLoader(molecules, batch_size=None, sampler=batches, collate_fn=_unchanged, pin_memory=pin_memory)


def evaluation_loader(molecules: Molecules, indices: Tensor, batch_size: int, pin_memory: bool = False) -> DataLoader:
    """The molecules `indices` in order, `batch_size` at a time."""
    parts = list(indices.split(batch_size)) if len(indices) else []
    return DataLoader(molecules, batch_size=None, sampler=parts, collate_fn=_unchanged, pin_memory=pin_memory)
