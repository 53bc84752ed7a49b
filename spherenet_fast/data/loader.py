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

    Several processes share a batch: each takes its part, so that together they see what one process would see with a
    batch as large as all parts.

    Args:
        indices: [M] molecules to draw from, at least one for each process.
        batch_size: molecules per batch of one process (of all processes together at most M are used).
        seed: of the order.
        start: the step of the first batch.
        rank: number of this process, from 0. count: how many there are.
    """

    def __init__(self, indices: Tensor, batch_size: int, seed: int, start: int = 0, rank: int = 0, count: int = 1):
        if len(indices) < count:
            each = "1 training molecule" if count == 1 else f"{count} training molecules, one for each process"
            raise ValueError(f"data.train: expected at least {each}, got {len(indices)}")
        self.indices = indices
        self.batch_size = min(batch_size * count, len(indices))  # of all processes
        self.seed = seed
        self.start = start
        self.rank, self.count = rank, count

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
                batch = order[position * self.batch_size : (position + 1) * self.batch_size]
                yield batch.tensor_split(self.count)[self.rank]
            epoch, step = epoch + 1, 0


class EvenBatches(ShuffledBatches):
    """`ShuffledBatches` that all have the same number of molecules, and edges up to a limit, about as many in each.

    The molecules of an epoch are sorted by edges and cut into as many portions as a batch has molecules; a batch takes
    one of each portion at random. So no two batches differ by more edges than the largest and the smallest molecule.
    The processes of a step take batches with nearly equal sums.

    Args:
        edges: [M] int64, of each molecule of `indices`.
        max_edges: in a batch of one process, whatever is drawn.
        batch_size: molecules per batch of one process, at most.

    Raises:
        ValueError: a single molecule has more edges than a batch may have.
    """

    def __init__(
        self,
        indices: Tensor,
        edges: Tensor,
        max_edges: int,
        batch_size: int,
        seed: int,
        start: int = 0,
        rank: int = 0,
        count: int = 1,
    ):
        super().__init__(indices, batch_size, seed, start, rank, count)
        self.edges = edges.numpy()
        ascending = np.sort(self.edges)
        if ascending[-1] > max_edges:
            largest = f"{ascending[-1]}, the edges of the largest training molecule"
            raise ValueError(f"training.max_edges: expected at least {largest}, got {max_edges}")
        size = self.batch_size // count
        while self._most_edges(ascending, size) > max_edges:
            size -= 1
        self.batch_size = size * count

    def _most_edges(self, ascending: np.ndarray, size: int) -> int:
        """No batch of `size` molecules has more edges, whichever molecules an epoch leaves out."""
        portion = len(ascending) // (size * self.count) * self.count
        left_out = len(ascending) - size * portion
        return int(ascending[left_out + portion - 1 :: portion].sum())

    def order(self, epoch: int) -> Tensor:
        """The molecules of the batches of `epoch`, one batch after the other: [at most M] int64."""
        draw = np.random.default_rng((self.seed, epoch))
        size, steps = self.batch_size // self.count, self.steps_per_epoch
        chosen = draw.permutation(len(self.indices))[: steps * self.batch_size]
        portions = chosen[np.argsort(self.edges[chosen], kind="stable")].reshape(size, -1)
        batches = draw.permuted(portions, axis=1).T
        batches = batches[np.argsort(self.edges[batches].sum(1), kind="stable")]
        shuffled = draw.permutation(batches.reshape(steps, self.batch_size))
        return self.indices[torch.from_numpy(shuffled.reshape(-1))]


def _unchanged(batch):
    return batch


def training_loader(molecules: Molecules, batches: ShuffledBatches, pin_memory: bool = False) -> DataLoader:
    """Endless batches of `molecules`, collated in the calling process: one gather is faster than a queue."""
    return DataLoader(molecules, batch_size=None, sampler=batches, collate_fn=_unchanged, pin_memory=pin_memory)


def evaluation_loader(molecules: Molecules, indices: Tensor, batch_size: int, pin_memory: bool = False) -> DataLoader:
    """The molecules `indices` in order, `batch_size` at a time."""
    parts = list(indices.split(batch_size)) if len(indices) else []
    return DataLoader(molecules, batch_size=None, sampler=parts, collate_fn=_unchanged, pin_memory=pin_memory)
