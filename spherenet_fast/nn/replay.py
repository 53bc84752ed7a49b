"""A model's energies and forces on the CPU from recorded operators, for one arrangement of atoms after another.

Half of the time of a small molecule goes into Python: modules, and torch's bookkeeping of derivatives. In dynamics all
of that is the same in every step, but for the numbers of edges and triplets, and so it is in training on frames of one
molecule. So it is done once: `make_fx` writes down which operators run, forward and backward, with these numbers as
symbols. In dynamics what depends on weights alone is computed once, too.
"""

import warnings
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from ..graph import Graph
from ..graph.given import checks_are_on
from .derivatives import with_forces, with_volume
from .framework import GraphNetwork3D
from .inputs import Inputs, entry, read_inputs
from .recording import Recording, System, TrainingRecording

AFTER = 100  # calls: recording takes as long as what it saves in so many calls of a small molecule
MOST = 8  # recordings that are kept


class Replay:
    """`energy_and_forces` and `energy_forces_stress` of a model, with the same results and gradients, bit by bit.

        predict = Replay(model)
        energy, forces = predict.energy_and_forces(data)

    A batch that differs from earlier ones in positions, elements and edges alone, not in its numbers of atoms and
    graphs, is recorded when it has come `after` times: as it is in evaluation mode, or with the gradients of all
    parameters that want one while the model is training. Then results can be differentiated once, by the parameters.
    Changed weights are seen; modules of the model may not be exchanged.

    The model itself is called, as ever, on another device, under autocast, with hooks on its modules, for gradients by
    positions, and if it cannot be recorded, which a UserWarning says once: a model that looks at values. So it is if
    the recording gives other bits: SchNet and PhysNet compute what two opposite edges share once, which a recording
    cannot.
    """

    def __init__(self, model: GraphNetwork3D, after: int = AFTER):
        self.model, self.after = model, after
        self._forget()

    def energy_and_forces(self, data: Any, graph: Graph | None = None) -> tuple[Tensor, Tensor]:
        """As the model's."""
        if not self._applies(data):
            return self.model.energy_and_forces(data, graph)
        with torch.inference_mode(False):
            return self._predict(read_inputs(data, self.model.parameter_like()), None, graph)

    def energy_forces_stress(self, data: Any, graph: Graph | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """As the model's."""
        if not self._applies(data):
            return self.model.energy_forces_stress(data, graph)
        with torch.inference_mode(False):
            return self._predict(*with_volume(read_inputs(data, self.model.parameter_like())), graph)

    def __getstate__(self) -> dict:
        return {"model": self.model, "after": self.after}

    def __setstate__(self, state: dict) -> None:
        self.__init__(**state)

    def _forget(self) -> None:
        self._recordings: dict[tuple, Recording | TrainingRecording | None] = {}  # None where there can be none
        self._calls: Counter = Counter()  # since the last recording
        self._watched = _Watched(self.model)
        self._recordable = True

    def _applies(self, data: Any) -> bool:
        model, weight = self.model, self.model.parameter_like()
        differentiable = torch.is_grad_enabled() and not getattr(entry(data, "pos"), "requires_grad", False)
        return (
            self._recordable
            and weight.is_cpu
            and (differentiable or not model.training)
            and not (torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"))
            and not torch._C._len_torch_dispatch_stack()
            and model.hparams.get("kernels", True)
            and not checks_are_on(weight)
            and not self._watched.has_hooks()
        )

    def _predict(self, inputs: Inputs, volume: Tensor | None, graph: Graph | None) -> tuple[Tensor, ...]:
        if self._watched.exchanged():
            self._forget()
        system = System(inputs, self.model.neighbors(inputs) if graph is None else graph, volume)
        kind = (*system.kind(), *(self._watched.wanted() if self.model.training else ()))
        recording = self._recordings.get(kind)
        if recording and recording.serves(system.sizes()):
            return self._replayed(recording, system)
        with torch.enable_grad():
            results = with_forces(self.model._predict, inputs, system.graph, self.model.training, volume)
        self._calls[kind] += 1
        if kind not in self._recordings and self._calls[kind] >= self.after and system.can_be_recorded():
            self._record(kind, system, results)
        return results

    def _replayed(self, recording: Recording | TrainingRecording, system: System) -> tuple[Tensor, ...]:
        return recording(system) if self.model.training else recording(system, self._watched.versions())

    def _record(self, kind: tuple, system: System, results: tuple[Tensor, ...]) -> None:
        """results: the model's, which those of the recording have to equal."""
        if len(self._recordings) >= MOST:
            del self._recordings[next(iter(self._recordings))]
        self._recordings[kind] = None
        self._calls.clear()
        try:
            recording = self._recording(system, results)
            same = self._same(results, self._replayed(recording, system))
        except Exception as error:  # whatever a model does that cannot be written down
            self._recordable = False
            reason = (str(error) or type(error).__name__).splitlines()[0]
            name = type(self.model).__name__
            warnings.warn(f"{name} cannot be recorded, so that small systems take longer: {reason}", stacklevel=4)
            return
        self._recordings[kind] = recording if same else None

    def _recording(self, system: System, results: tuple[Tensor, ...]) -> Recording | TrainingRecording:
        if not self.model.training:
            return Recording(self.model, system)
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        return TrainingRecording(self.model, system, results, parameters)

    def _same(self, results: tuple[Tensor, ...], found: tuple[Tensor, ...]) -> bool:
        """Whether results, and gradients by the parameters where there are any, are equal bit by bit."""
        if not all(map(torch.equal, found, results)):
            return False
        if not self.model.training:
            return True
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        cotangents = [torch.linspace(-1, 1, x.numel(), dtype=x.dtype).reshape(x.shape) for x in results]
        of_found, of_results = (
            torch.autograd.grad(x, parameters, cotangents, retain_graph=True, materialize_grads=True)
            for x in (found, results)
        )
        return all(map(torch.equal, of_found, of_results))


class _Watched:
    """The parameters, buffers and hooks of a model, looked at in every call."""

    def __init__(self, model: GraphNetwork3D):
        modules = list(model.modules())
        places = [place for module in modules for place in (module._parameters, module._buffers)]
        self.tensors = [(place, name, tensor) for place in places for name, tensor in place.items()]
        self.hooks = [hooks for module in modules for hooks in (module._forward_hooks, module._forward_pre_hooks)]

    def has_hooks(self) -> bool:
        return any(self.hooks)

    def exchanged(self) -> bool:
        """Whether there is another tensor in the place of one."""
        return any(place.get(name) is not tensor for place, name, tensor in self.tensors)

    def wanted(self) -> list[bool]:
        """Which of the tensors want a gradient."""
        return [tensor.requires_grad for _, _, tensor in self.tensors if tensor is not None]

    def versions(self) -> list[tuple[int, int]]:
        """What changes with any of the tensors' values."""
        return [(tensor._version, tensor.data_ptr()) for _, _, tensor in self.tensors if tensor is not None]
