"""One function as a CUDA graph: on which stream it runs, when it is recorded, and what is left where that fails."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch

WARM_UP = 3  # calls


class RecordingError(RuntimeError):
    """A function that cannot be recorded as a CUDA graph; the message says why."""


class Recorded:
    """A function of tensors that stay in place, called as it is at first and then replayed as CUDA graph.

    Every call before the replays runs on one stream of its own, the one that is recorded: autograd remembers the stream
    of each node, and a node of another stream would tie that stream to the recording, which CUDA refuses.
    On a CPU the function is called as it is, always. What it returns is overwritten by the next call.

    beside: another one whose stream this one shares, and its memory, as what goes on with its results: the derivatives
    of what it computes. Both are then to be replayed in turns.
    """

    def __init__(self, function: Callable[[], Any], device: torch.device, beside: "Recorded | None" = None):
        self.function, self.device, self.beside = function, device, beside
        self.calls, self.result = 0, None
        self.stream, self.pool, self.graph = None, None, None

    def __call__(self, may_record: bool = True) -> Any:
        """may_record: False as long as something that the function reads may still move.

        Raises RecordingError if the function cannot be recorded; the next calls start again with the warm-up.
        """
        if self.device.type != "cuda":
            return self.function()
        with torch.cuda.device(self.device):
            if self.graph is None and (self.calls < WARM_UP or not may_record):
                self._warm_up()
                self.calls += 1
            else:
                if self.graph is None:
                    self.record()  # which computes nothing
                self.graph.replay()
        return self.result

    def _take_stream(self) -> None:
        if self.stream is None:
            self.stream = self.beside.stream if self.beside else torch.cuda.Stream()

    def _warm_up(self) -> None:
        self._take_stream()
        caller = torch.cuda.current_stream()
        self.stream.wait_stream(caller)
        try:
            with torch.cuda.stream(self.stream):
                self.result = self.function()
        finally:
            caller.wait_stream(self.stream)

    def forget(self) -> None:
        """Start again with the warm-up."""
        self.calls, self.result, self.graph = 0, None, None

    def record(self) -> None:
        """Records the function in this call; its device has to be the current one. Raises RecordingError."""
        self._take_stream()
        shared = self.beside.pool if self.beside else None
        graph, self.pool = torch.cuda.CUDAGraph(), self.pool or shared or torch.cuda.graph_pool_handle()
        cause = None
        try:
            # The outer context ends on the caller's stream even where the inner one fails to end.
            # thread_local: other threads, such as one that pins memory, may go on with their work.
            with (
                torch.cuda.stream(self.stream),
                torch.cuda.graph(graph, self.pool, self.stream, capture_error_mode="thread_local"),
            ):
                try:
                    self.result = self.function()
                except BaseException as error:
                    cause = error
                    raise
        except BaseException as error:
            self.forget()
            if error is cause:  # the capture has come to its end, and the pool goes with the graph
                self.pool = None
            else:
                _abandon(graph, self.pool, self.stream)
            cause = cause or error
            if not isinstance(cause, Exception):
                raise cause
            reason = (str(cause) or type(cause).__name__).splitlines()[0]
            raise RecordingError(f"the step cannot be recorded as a CUDA graph: {reason}") from cause
        self.graph = graph


_abandoned: list[Any] = []


def _abandon(graph: Any, pool: tuple[int, int], stream: Any) -> None:
    """Makes torch usable after a capture whose end has failed.

    The first error of `CUDAGraph.capture_end` leaves the rest of it undone. How much that is depends on the version:
    the allocator takes the capture for one that goes on, so that no memory can be freed and no other capture begin, and
    the generator of random numbers refuses every call outside of a capture. The pool stays with the graph, which has to
    be kept, because torch's allocator of pinned memory may still ask it; the next attempt takes the memory in it.
    """
    _abandoned.append(graph)
    with suppress(RuntimeError):  # this version has done that
        torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)
    # A capture that comes to its end takes the generator along. After an error of the device it fails, too, and the
    # first error is the one that counts.
    with suppress(RuntimeError), torch.cuda.stream(stream):
        with torch.cuda.graph(torch.cuda.CUDAGraph(), stream=stream):
            torch.zeros(1, device=stream.device)


class ReadLater:
    """A tensor of a GPU on the host, which does not keep the GPU from going on: `begin(tensor)`, then `end()`."""

    def __init__(self):
        self.tensor: Any = None
        self.copied: Any = None

    def begin(self, tensor: Any) -> None:
        """tensor: as it is at this point of the current stream, of one shape always."""
        if not tensor.is_cuda:
            self.tensor = tensor
            return
        if self.copied is None:
            self.tensor, self.copied = torch.empty_like(tensor, device="cpu").pin_memory(), torch.cuda.Event()
        self.tensor.copy_(tensor, non_blocking=True)
        self.copied.record()

    def end(self) -> list:
        """Its numbers, as soon as they are there."""
        if self.copied is not None:
            self.copied.synchronize()
        return self.tensor.tolist()
