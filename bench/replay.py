"""Calls recorded as CUDA graphs: what remains is the work of the GPU."""

from collections.abc import Callable

import torch

from spherenet_fast.capture import Capacity, CapturedInference, CapturedTraining, masked_mean

WARM_UP = 3  # calls before the recording


def recorded(call: Callable[[], object]) -> Callable[[], object]:
    """A call that replays what `call` does now. Its tensors are kept; what it returns is lost."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    kept = call  # with the arrays that the graph reads

    def replay() -> None:
        graph.replay()

    replay.kept = kept
    return replay


def captured(model, procedure: str, data, cutoff: float) -> Callable[[], object]:
    """A procedure as users run it: `spherenet_fast.capture` with a tenth of room to spare, from a batch to its result.

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
    for _ in range(WARM_UP + 1):
        call()
    return call


def _loss(energy, forces, batch):
    loss = masked_mean(energy.square(), batch.graph_mask)
    return loss if forces is None else loss + masked_mean(forces.square(), batch.atom_mask)
