"""Calls recorded as CUDA graphs: what remains is the work of the GPU."""

import gc
from collections.abc import Callable

import torch

from spherenet_fast.cuda_graph import WARM_UP, Capacity, CapturedInference, CapturedTraining, Recorded, masked_mean


def recorded(make: Callable[[], Callable[[], object]], device: torch.device) -> Callable[[], object]:
    """A call that replays what the call does that `make` returns; on a CPU, that call itself.

    `make` runs on the stream that is recorded, so that all of autograd's graph belongs to it. What the call keeps is
    kept, what it returns is lost.
    """
    calls = []

    def first_make_then_call() -> None:
        calls[:] = calls or [make()]
        calls[0]()

    if device.type == "cuda":
        gc.collect()  # a graph of another stream that still knows the parameters would be in the way
    run = Recorded(first_make_then_call, device)
    for _ in range(calls_until_recorded(device)):
        run()
    return run if run.graph is None else lambda: run.graph.replay()


def captured(model, procedure: str, data, cutoff: float) -> Callable[[], object]:
    """A procedure as users run it: `spherenet_fast.cuda_graph` with a tenth of room to spare, from batch to result.

    A step includes the optimizer, AdamW, with a learning rate of 0.
    """
    capacity = Capacity.of([data], cutoff)
    forces = "forces" in procedure
    if not procedure.endswith("step"):
        predict = CapturedInference(model.eval(), capacity, forces)
        call = lambda: predict(data)  # noqa: E731
    else:
        fused = data.pos.is_cuda
        optimizer = torch.optim.AdamW(
            model.train().parameters(), lr=0.0, weight_decay=0.0, fused=fused, capturable=fused
        )
        step = CapturedTraining(model, _loss, optimizer, capacity, forces, atom_labels=(), graph_labels=())
        call = lambda: step(data)  # noqa: E731
    for _ in range(calls_until_recorded(data.pos.device)):
        call()
    return call


def calls_until_recorded(device: torch.device) -> int:
    return WARM_UP + 1 if device.type == "cuda" else 1


def _loss(energy, forces, batch):
    loss = masked_mean(energy.square(), batch.graph_mask)
    return loss if forces is None else loss + masked_mean(forces.square(), batch.atom_mask)
