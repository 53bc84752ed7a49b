"""Loaders whose order depends on nothing but the seed and the step."""

import itertools
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from .molecules import Batch, Molecules
from .streams.molecules import Guarded, StreamedMolecules


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


class WorkerBatches:
    """Batches of molecules that other processes read, in the order of `batches`.

    Where one of these processes ends, killed for its memory for example, the calling one reads the rest itself, and
    says so: an error in the middle of a step would cost what was trained since the last checkpoint.

    Args:
        molecules: with at least one worker.
        batches: of indices [B], the same from one iteration to the next.
        died: called, with what is known of it, where a process has ended.
    """

    def __init__(self, molecules: StreamedMolecules, batches: Iterable[Tensor], pin_memory: bool, died: Callable):
        self.molecules, self.batches, self.died = molecules, batches, died
        self._found: Iterator | None = None
        self.loader = DataLoader(
            Guarded(molecules.reader), batch_size=None, sampler=batches, collate_fn=_unchanged, pin_memory=pin_memory,
            num_workers=molecules.workers,
        )  # fmt: skip

    def __iter__(self) -> Iterator[Batch]:
        done = 0
        self._found = found = _without_child_signals(lambda: iter(self.loader))
        while True:
            try:
                batch = next(found)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:  # what reading itself raises comes as a batch
                if isinstance(error, RuntimeError) and not str(error).startswith("DataLoader worker"):
                    raise
                reason = " ".join(str(error).split())
                break
            if isinstance(batch, Exception):
                raise batch
            yield batch
            done += 1
        self.close()
        self.died(reason)
        for indices in itertools.islice(iter(self.batches), done, None):
            yield self.molecules[indices]

    def close(self) -> None:
        """End the processes of the last iteration."""
        if self._found is not None:
            self._found._shutdown_workers()
            self._found = None


class CountedWorkerBatches(WorkerBatches):
    """`WorkerBatches` of a list of batches, so that their number is known."""

    def __len__(self) -> int:
        return len(self.batches)


def _without_child_signals(make: Callable):
    """What `make` returns, without the handler that torch sets for processes that end: it would raise its error
    wherever the training is, in the middle of the optimizer's step for example. Waiting for a batch finds out, too.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        return make()
    before = signal.getsignal(signal.SIGCHLD)
    made = make()
    of_torch = getattr(before, "__module__", "").startswith("torch.")
    signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None or of_torch else before)
    return made


def _say(what: str) -> None:
    print(f"a process that reads data has ended, this one goes on without it: {what}", file=sys.stderr, flush=True)


def training_loader(
    molecules: Molecules | StreamedMolecules, batches: ShuffledBatches, pin_memory=False, died: Callable = _say
) -> Iterable[Batch]:
    """Endless batches of `molecules`, collated in the calling process where they are in memory: one gather is faster
    than a queue. Of those that are not, `died` is called where a process that reads them has ended."""
    return _loader(molecules, batches, pin_memory, died, WorkerBatches)


def evaluation_loader(
    molecules: Molecules | StreamedMolecules, indices: Tensor, batch_size: int, pin_memory=False, died: Callable = _say
) -> Iterable[Batch]:
    """The molecules `indices` in order, `batch_size` at a time."""
    parts = list(indices.split(batch_size)) if len(indices) else []
    return _loader(molecules, parts, pin_memory, died, CountedWorkerBatches)


def _loader(molecules, batches, pin_memory: bool, died: Callable, of_workers: type[WorkerBatches]) -> Iterable[Batch]:
    if getattr(molecules, "workers", 0):
        return of_workers(molecules, batches, pin_memory, died)
    return DataLoader(molecules, batch_size=None, sampler=batches, collate_fn=_unchanged, pin_memory=pin_memory)
