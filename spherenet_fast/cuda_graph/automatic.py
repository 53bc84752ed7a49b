"""CUDA graphs without being asked: of a model's predictions on a GPU, with room that grows."""

import math
import os
import warnings
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..graph import Graph
from ..graph.padding import Capacity, CapacityError
from ..nn.derivatives import with_volume
from ..nn.framework import GraphNetwork3D
from ..nn.inputs import Inputs, entry, read_inputs
from ..nn.replay import Replay
from .derivatives import CapturedPrediction
from .recorded import RecordingError
from .steps import CapturedInference

AFTER = 3  # calls: batches of a kind that comes less often are computed as ever
MOST = 4  # recordings that are kept: each holds the memory of a step
SPARE = 0.1  # of the sizes of a batch for which room is made
SWITCH = "SPHERENET_FAST_CUDA_GRAPHS"  # in the environment; 0: nothing is recorded
# Rounding by other orders of summation is a thousand times smaller, save for products that are rounded to TF32.
TOLERANCE = 1e-2

Captured = CapturedInference | CapturedPrediction


class CapturedModel(Replay):
    """A model's predictions on a GPU, by CUDA graphs wherever that is possible.

        predict = CapturedModel(model)
        energy, forces = predict.energy_and_forces(data)

    When batches of about the same size have come `after` times, with cells or without, they are put in arrays of a
    fixed size, a tenth larger, and what is done with them is recorded: the predictions of a model in evaluation mode,
    or those of one that is training and their gradients by its parameters, which can be had once and before the next
    prediction. A batch that does not fit makes more room for all that follow. What is recorded is compared to the model
    once, and recorded anew where weights have moved in memory, as in an average that is exchanged with them.

    The model itself is called as `Replay` does it on other devices, and with SPHERENET_FAST_CUDA_GRAPHS=0 in the
    environment. So it is if it cannot be recorded, if the memory does not suffice, or if the recording gives other
    numbers, which a UserWarning says once.
    """

    device = "cuda"

    def __init__(self, model: GraphNetwork3D, after: int = AFTER):
        super().__init__(model, after)

    def forget(self) -> None:
        super().forget()
        self._captured: dict[tuple, Captured] = {}
        self._compared: set[tuple] = set()  # kind, and whether it was recorded by then
        self._refused = False

    def __call__(self, data: Any, graph: Graph | None = None) -> Tensor:
        """As the model's."""
        return self._found(0, "forward", data, graph)[0]

    def energy_and_forces(self, data: Any, graph: Graph | None = None) -> tuple[Tensor, Tensor]:
        """As the model's."""
        return self._found(1, "energy_and_forces", data, graph)

    def energy_forces_stress(self, data: Any, graph: Graph | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """As the model's."""
        return self._found(2, "energy_forces_stress", data, graph)

    def _found(self, slopes: int, method: str, data: Any, graph: Graph | None) -> Any:
        def of_model():
            found = getattr(self.model, method)(data, graph)
            return found if slopes else (found,)

        if self._refused or os.environ.get(SWITCH) == "0" or not self._applies(data, method):
            return of_model()
        training = self.model.training
        if slopes == 0 and not training and torch.is_grad_enabled():  # the result may be differentiated
            return of_model()
        kind = self._kind(slopes, data, graph)
        self._calls[kind] += 1
        if self._calls[kind] <= self.after:
            return of_model()
        try:
            if slopes == 2:
                with_volume(read_inputs(data, self.model.parameter_like()))  # or an error
            captured, found = self._predicted(kind, slopes, data, graph)
            state = kind, captured.is_recorded
            if state in self._compared:
                return found
            self._compared.add(state)
            expected = of_model()
            if _close(found, expected):
                if isinstance(captured, CapturedPrediction):
                    captured.check = partial(self._checked, expected, captured)
                return found
            reason = "its results in arrays of a fixed size are others"
        except (RecordingError, torch.OutOfMemoryError) as error:
            reason = str(error).splitlines()[0]
        self._refuse(reason)
        return of_model()

    def _predicted(
        self, kind: tuple, slopes: int, data: Any, graph: Graph | None
    ) -> tuple[Captured, tuple[Tensor, ...]]:
        captured = self._captured.get(kind) or self._make(kind, slopes, data, graph)
        try:
            found = captured(data, graph)
        except CapacityError:
            captured = self._make(kind, slopes, data, graph)
            found = captured(data, graph)
        return captured, found if isinstance(found, tuple) else (found,)

    def _checked(
        self, predicted: tuple[Tensor, ...], captured: CapturedPrediction, gradients: list, cotangents: tuple
    ) -> list[Tensor | None]:
        """The gradients, or those of what the model itself has predicted if they are others."""
        captured.check = None
        parameters = list(captured.of_weights.leaves()[0].values())
        expected = torch.autograd.grad(predicted, parameters, cotangents, allow_unused=True)
        pairs = [
            [torch.zeros_like(parameter) if gradient is None else gradient for gradient in pair]
            for parameter, *pair in zip(parameters, gradients, expected, strict=True)
        ]
        found, exact = (torch.cat([gradient.flatten() for gradient in part]) for part in zip(*pairs))
        if (found - exact).norm() <= TOLERANCE * exact.norm():
            return gradients
        self._refuse("its gradients in arrays of a fixed size are others")
        return list(expected)

    def _applies(self, data: Any, method: str) -> bool:
        return super()._applies(data, method) and not _is_capturing(self.model.parameter_like())

    def _kind(self, slopes: int, data: Any, graph: Graph | None) -> tuple:
        """Equal for batches that one recording serves: of similar size, as padding is computed, too."""
        size = round(2 * math.log2(max(len(entry(data, "z")), 1)))
        places = tuple(tensor.data_ptr() for tensor in self._watched.tensors)
        return (slopes, size, entry(data, "cell") is None, graph is None, *self._watched.modes(), *places)

    def _make(self, kind: tuple, slopes: int, data: Any, graph: Graph | None) -> Captured:
        """A recording with room for `data` and whatever the one before had room for."""
        before = self._captured.pop(kind, None)
        self._compared -= {(kind, False), (kind, True)}
        inputs = read_inputs(data, self.model.parameter_like())
        capacity = room_for(inputs, self.model.neighbors(inputs) if graph is None else graph)
        if before is not None:
            capacity = Capacity(*map(max, capacity, before.step.capacity))
        while len(self._captured) >= MOST:
            del self._captured[next(iter(self._captured))]
        if self.model.training:
            made: Captured = CapturedPrediction(self.model, capacity, slopes)
        else:
            made = CapturedInference(self.model, capacity, slopes > 0, slopes > 1)
        self._captured[kind] = made
        return made

    def _refuse(self, reason: str) -> None:
        self._captured.clear()
        self._refused = True
        name = type(self.model).__name__
        warnings.warn(f"{name} runs without CUDA graphs, which takes longer: {reason}", stacklevel=4)


def _is_capturing(tensor: Tensor) -> bool:
    """Whether the caller is recording already."""
    return tensor.is_cuda and torch.cuda.is_current_stream_capturing()


def room_for(inputs: Inputs, graph: Graph, spare: float = SPARE) -> Capacity:
    sizes = inputs.num_graphs, len(inputs.z), len(graph.rev), graph.num_triplets
    return Capacity(*(math.ceil(size * (1 + spare)) for size in sizes))


def _close(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> bool:
    """Whether predictions are the same but for rounding: forces may cancel, the energies that they belong to do not."""
    scale = max(float(value.detach().abs().max()) for value in expected if value.numel())
    differences = (mine.detach() - other.detach() for mine, other in zip(found, expected, strict=True))
    return all(float(difference.abs().max()) <= TOLERANCE * scale for difference in differences if difference.numel())
