"""Predictions of fixed size in training, recorded forward and backward: loss and optimizer are the caller's."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..graph import Graph
from ..graph.padding import Capacity
from ..nn.framework import GraphNetwork3D
from .recorded import WARM_UP, ReadLater, Recorded
from .steps import LossOf, Step


class CapturedPrediction:
    """Energies, forces and stress of batches, differentiable once, by the model's parameters.

    The search for neighbors, the predictions and their gradients are recorded graphs of their own. The sizes that the
    search has found are read while the predictions are computed. Only the last call's results can be differentiated.

    Args:
        model: with its fused kernels, in training mode.
        capacity: of batches, in atoms, edges, triplets and graphs.
        slopes: 0 for energies alone, 1 for forces, too, 2 for forces and stress.
    """

    def __init__(self, model: GraphNetwork3D, capacity: Capacity, slopes: int):
        self.step = Step(model, capacity)
        if not model.training:
            raise ValueError("model: expected one in training mode, model.train(), got one in evaluation mode")
        device = self.step.weight.device
        self.of_weights = LossOf(model, lambda *found: found, lambda: self.step.predict(slopes))
        self.find, self.predict = Recorded(self.step.find, device), Recorded(self._predict, device)
        self.differentiate = Recorded(self._differentiate, device, beside=self.predict)
        self.status = ReadLater()
        self.leaves: dict[str, Tensor] = {}
        self.found: tuple[Tensor, ...] = ()
        self.cotangents: list[Tensor] = []
        self.calls = 0
        self.check: Callable[[list, tuple], list] | None = None  # (gradients, cotangents) -> gradients

    @property
    def is_recorded(self) -> bool:
        return self.differentiate.graph is not None

    def _predict(self) -> tuple[Tensor, ...]:
        _, self.leaves = self.of_weights.leaves()
        with torch.enable_grad():
            self.found = torch.func.functional_call(self.of_weights, self.leaves, ())
        return self.found

    def _differentiate(self) -> tuple[Tensor | None, ...]:
        return torch.autograd.grad(self.found, list(self.leaves.values()), self.cotangents, allow_unused=True)

    def _record(self) -> None:
        with torch.cuda.device(self.predict.device):
            self.predict.record()
            try:
                self.differentiate.record()
            except BaseException:
                self.predict.forget()
                raise

    @torch.inference_mode(False)  # the arrays in place, made by the first call, serve calls from anywhere
    def __call__(self, data: Any, graph: Graph | None = None) -> tuple[Tensor, ...]:
        """energy [graphs, out_channels], forces [N, 3] and stress [graphs, 3, 3], or as many of them as are wanted.

        data, graph, errors: as for CapturedInference.
        """
        inputs = self.step.put(data, graph, self.find.graph is not None)
        self.status.begin(self.find())
        # the neighbors stay in place once their search is recorded
        if self.find.graph is not None and self.predict.graph is None and self.predict.calls >= WARM_UP:
            self._record()
        self.predict(may_record=False)
        self.step.raise_if_wrong(self.status.end(), data, inputs)
        self.cotangents = self.cotangents or [torch.zeros_like(value) for value in self.found]
        self.calls += 1
        parameters, _ = self.of_weights.leaves()
        return _Predicted.apply(self, self.step.sizes(inputs), *parameters.values())

    def gradients(self, call: int, cotangents: tuple[Tensor, ...]) -> list[Tensor | None]:
        """Of what the cotangents [rows, ...] belong to, by all parameters that want one."""
        if call != self.calls:
            raise RuntimeError("CapturedPrediction: expected a backward pass before the next prediction, got one after")
        for room, cotangent in zip(self.cotangents, cotangents):
            room[: len(cotangent)] = cotangent
            room[len(cotangent) :] = 0
        found = self.differentiate(may_record=False)
        copies = iter(torch._foreach_mul([gradient for gradient in found if gradient is not None], 1))
        gradients = [None if gradient is None else next(copies) for gradient in found]
        return gradients if self.check is None else self.check(gradients, cotangents)


class _Predicted(torch.autograd.Function):
    """A captured prediction, how many of its rows are wanted, and parameters -> these rows."""

    @staticmethod
    def forward(ctx, captured: CapturedPrediction, sizes: tuple[int, ...], *parameters: Tensor):
        ctx.captured, ctx.call = captured, captured.calls
        return tuple(value[:rows].detach().clone() for value, rows in zip(captured.found, sizes))

    @staticmethod
    def backward(ctx, *cotangents: Tensor):
        if torch.is_grad_enabled():
            raise RuntimeError("CapturedPrediction: expected no second derivative, got create_graph=True")
        return None, None, *ctx.captured.gradients(ctx.call, cotangents)
