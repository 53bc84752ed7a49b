"""A model's energies and forces on the CPU from recorded operators, for one arrangement of atoms after another.

Half of the time of a small molecule goes into Python: modules, and torch's bookkeeping of derivatives. In dynamics all
of that is the same in every step, but for the numbers of edges and triplets. So it is done once: `make_fx` writes down
which operators run, forward and backward, with these numbers as symbols. What depends on weights alone is computed
once, too.
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
from .inputs import Inputs, read_inputs
from .recording import Recording

AFTER = 100  # calls: recording takes as long as what it saves in so many calls of a small molecule
MOST = 8  # recordings that are kept


class Replay:
    """`energy_and_forces` and `energy_forces_stress` of a model in evaluation mode, with the same results, bit by bit.

        predict = Replay(model.eval())
        energy, forces = predict.energy_and_forces(data)

    A system that differs from earlier ones in positions, elements and edges alone, not in its number of atoms, is
    recorded when it has come `after` times. Changed weights are seen; modules of the model may not be exchanged.

    The model itself is called, as ever, on another device, in training, under autocast, with hooks on its modules, and
    if it cannot be recorded, which a UserWarning says once: a model that looks at values. So it is if the recording
    gives other bits: SchNet and PhysNet compute what two opposite edges share once, which a recording cannot.
    """

    def __init__(self, model: GraphNetwork3D, after: int = AFTER):
        self.model, self.after = model, after
        self._forget()

    def energy_and_forces(self, data: Any, graph: Graph | None = None) -> tuple[Tensor, Tensor]:
        """As the model's."""
        if not self._applies():
            return self.model.energy_and_forces(data, graph)
        with torch.inference_mode(False):
            return self._predict(read_inputs(data, self.model.parameter_like()), None, graph)

    def energy_forces_stress(self, data: Any, graph: Graph | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """As the model's."""
        if not self._applies():
            return self.model.energy_forces_stress(data, graph)
        with torch.inference_mode(False):
            return self._predict(*with_volume(read_inputs(data, self.model.parameter_like())), graph)

    def __getstate__(self) -> dict:
        return {"model": self.model, "after": self.after}

    def __setstate__(self, state: dict) -> None:
        self.__init__(**state)

    def _forget(self) -> None:
        self._recordings: dict[tuple, Recording | None] = {}  # None where there can be none
        self._calls: Counter = Counter()
        self._watched = _Watched(self.model)

    def _applies(self) -> bool:
        weight = self.model.parameter_like()
        return (
            weight.is_cpu
            and not (self.model.training or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"))
            and not torch._C._len_torch_dispatch_stack()
            and self.model.hparams.get("kernels", True)
            and not checks_are_on(weight)
            and not self._watched.has_hooks()
        )

    def _predict(self, inputs: Inputs, volume: Tensor | None, graph: Graph | None) -> tuple[Tensor, ...]:
        if self._watched.exchanged():
            self._forget()
        if graph is None:
            graph = self.model.neighbors(inputs)
        kind = Recording.kind(inputs, volume, graph)
        recording = self._recordings.get(kind)
        results = recording and recording(inputs, volume, graph, self._watched.versions())
        if not results:
            with torch.enable_grad():
                results = with_forces(self.model._predict, inputs, graph, False, volume)
            self._calls[kind] += 1
            if kind not in self._recordings and self._calls[kind] >= self.after and Recording.is_possible(graph):
                self._record(kind, results, inputs, volume, graph)
        return results

    def _record(self, kind: tuple, results: tuple[Tensor, ...], *system: Any) -> None:
        """results: the model's of `system`, which those of the recording have to equal."""
        if len(self._recordings) >= MOST:
            del self._recordings[next(iter(self._recordings))]
        self._recordings[kind] = None
        try:
            recording = Recording(self.model, *system)
            found = recording(*system, self._watched.versions())
        except Exception as error:  # whatever a model does that cannot be written down
            reason = (str(error) or type(error).__name__).splitlines()[0]
            name = type(self.model).__name__
            warnings.warn(f"{name} cannot be recorded, so that small systems take longer: {reason}", stacklevel=4)
            return
        if found and all(map(torch.equal, found, results)):
            self._recordings[kind] = recording


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

    def versions(self) -> list[tuple[int, int]]:
        """What changes with any of the tensors' values."""
        return [(tensor._version, tensor.data_ptr()) for _, _, tensor in self.tensors if tensor is not None]
