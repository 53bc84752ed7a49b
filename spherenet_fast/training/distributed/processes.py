"""The processes of one training, and what they tell each other.

Each trains on one device, with its part of every batch; Lightning's DDP averages the gradients. What one of them alone
may do (files, the terminal) is the first one's.

They talk through CPU memory (gloo), on GPUs too, where NCCL carries the gradients alone: a gloo connection that is
closed is an error at once, while NCCL would wait for a process that has died.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning.pytorch.plugins.environments import LightningEnvironment
from torch import Tensor

Result = TypeVar("Result")

# What torch says where a process is gone: gloo's connections, NCCL's, and those of its store.
_LOST = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "timed out", "timeout")


class Processes:
    """The processes that train together, as one of them sees them.

    Attributes:
        rank: number of this process, from 0. count: how many there are.
        local_rank: its number on its machine, that of its GPU, too.
        sharers: how many take their threads from the same cores, which nobody has divided among them.
    """

    def __init__(self, rank: int = 0, count: int = 1, local_rank: int = 0, sharers: int = 1):
        self.rank, self.count, self.local_rank, self.sharers = rank, count, local_rank, sharers

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and reports."""
        return self.rank == 0

    def share(self, items: Tensor) -> Tensor:
        """Of items [n, ...] every `count`-th one from number `rank` on: all processes together have each once."""
        return items[self.rank :: self.count]

    def gathered(self, numbers: list[float]) -> Tensor:
        """The numbers of all processes, which have as many each: [count, n] float64."""
        own = torch.tensor(numbers, dtype=torch.float64)
        rows = [torch.empty_like(own) for _ in range(self.count)]
        with losses_named():
            dist.all_gather(rows, own)
        return torch.stack(rows)

    def objects(self, value: Any) -> list[Any]:
        """The values of all processes, of tensors on the CPU."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        with losses_named():
            dist.all_gather_object(found, value)
        return found

    def sum(self, values: Any) -> Any:
        """The sum over all processes of numbers and tensors, and of dicts and lists of them; None counts as 0.

        Tensors come back on the CPU. It is the same on all processes to the last bit.
        """
        if self.count == 1:
            return values
        first, *others = self.objects(_on_cpu(values))
        for other in others:
            first = _added(first, other)
        return first

    def all_do(self, function: Callable[[], Result]) -> Result:
        """What `function` returns on this process, once it has on all.

        Of errors (`Exception`) the first process that has one raises it, and the others end with exit code 2.
        """
        if self.count == 1:
            return function()
        failure, result = None, None
        try:
            result = function()
        except Exception as error:
            failure = error
        failed = [rank for rank, wrong in enumerate(self.objects(failure is not None)) if wrong]
        if not failed:
            return result  # type: ignore[return-value]
        if failure is not None and failed[0] == self.rank:
            raise failure
        raise SystemExit(2)

    def first_does(self, function: Callable[[], Result]) -> Result:
        """What `function`, called on the first process alone, returns there; an error of it is as in `all_do`."""
        own = self.all_do(function if self.is_first else lambda: None)
        if self.count == 1:
            return own  # type: ignore[return-value]
        found = [own]
        with losses_named():
            dist.broadcast_object_list(found)
        return found[0]  # type: ignore[return-value]

    def first_before_others(self, function: Callable[[], Result]) -> Result:
        """`all_do`, but the others begin when the first process has ended: they find the files that it has written."""
        early = self.all_do(function if self.is_first else lambda: None)
        if self.count == 1:
            return early  # type: ignore[return-value]
        late = self.all_do(function if not self.is_first else lambda: None)
        return early if self.is_first else late  # type: ignore[return-value]

    @contextlib.contextmanager
    def one_voice(self) -> Iterator[None]:
        """While entered, only the first process writes to standard output."""
        if self.is_first:
            yield
            return
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            yield

    def environment(self) -> LightningEnvironment:
        """What Lightning is to know: these processes exist, whatever SLURM, torchrun, LSF or MPI say of others."""
        return _Environment(self)


class _Environment(LightningEnvironment):
    creates_processes_externally = True

    def __init__(self, processes: Processes):
        super().__init__()
        self._processes = processes
        self.set_global_rank(processes.rank)  # else loggers of a process with RANK or SLURM_PROCID above 0 keep silent

    def world_size(self) -> int:
        return self._processes.count

    def set_global_rank(self, rank: int) -> None:
        super().set_global_rank(self._processes.rank)  # Lightning counts node by node, which SLURM need not

    def local_rank(self) -> int:
        return self._processes.local_rank

    def teardown(self) -> None:
        pass


@contextlib.contextmanager
def losses_named() -> Iterator[None]:
    """Makes a ConnectionError, in words, of what torch raises where another process is gone."""
    try:
        yield
    except RuntimeError as error:
        text = str(error).lower()
        if dist.is_initialized() and any(sign in text for sign in _LOST):
            who = f"process {dist.get_rank()} of {dist.get_world_size()}"
            raise ConnectionError(f"{who} stops: another one has ended, or does not answer") from error
        raise


def _on_cpu(values: Any) -> Any:
    if isinstance(values, Tensor):
        return values.detach().cpu()
    if isinstance(values, dict):
        return {name: _on_cpu(value) for name, value in values.items()}
    return [_on_cpu(value) for value in values] if isinstance(values, list | tuple) else values


def _added(one: Any, other: Any) -> Any:
    if one is None or other is None:
        return other if one is None else one
    if isinstance(one, dict):
        return {name: _added(value, other[name]) for name, value in one.items()}
    if isinstance(one, list):
        return [_added(*pair) for pair in zip(one, other, strict=True)] if one and other else one or other
    return one + other
