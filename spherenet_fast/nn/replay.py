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
from torch import Tensor, nn

from ..graph import Graph
from ..graph.given import checks_are_on
from .derivatives import with_forces, with_volume
from .framework import GraphNetwork3D
from .inputs import Inputs, entry, read_inputs
from .recording import Recording, System, TrainingRecording, kind_of

AFTER = 100  # calls: recording takes as long as what it saves in so many calls of a small molecule
MOST = 8  # recordings that are kept


class Replay:
    """`energy_and_forces` and `energy_forces_stress` of a model, with the same results and gradients, bit by bit.

        predict = Replay(model)
        energy, forces = predict.energy_and_forces(data)

    A batch that differs from earlier ones in positions, elements and edges alone, not in its numbers of atoms and
    graphs, is recorded when it has come `after` times: as it is in evaluation mode, or with the gradients of all
    parameters that want one while the model is training. Then results can be differentiated once, by the parameters.
    Changed parameters, buffers and modules are seen; numbers that the model has as attributes may not change, and
    where single elements are written through `.data` or NumPy, `forget()` says so.

    The model itself is called, as ever, on another device, under autocast, with hooks, for gradients by positions, and
    if it has its own `energy_and_forces`. So it is if it cannot be recorded, which a UserWarning says once: a model
    that looks at values, draws random numbers or changes its buffers; and if the recording gives other bits: SchNet and
    PhysNet compute what two opposite edges share once, which a recording cannot.
    """

    device = "cpu"  # the type of those on which operators are recorded

    def __init__(self, model: GraphNetwork3D, after: int = AFTER):
        self.model, self.after = model, after
        self.forget()

    def __call__(self, data: Any, graph: Graph | None = None) -> Tensor:
        """As the model's, by the model itself."""
        return self.model(data, graph)

    def energy_and_forces(self, data: Any, graph: Graph | None = None) -> tuple[Tensor, Tensor]:
        """As the model's."""
        if not self._applies(data, "energy_and_forces"):
            return self.model.energy_and_forces(data, graph)
        with torch.inference_mode(False):
            return self._predict(read_inputs(data, self.model.parameter_like()), None, graph)

    def energy_forces_stress(self, data: Any, graph: Graph | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """As the model's."""
        if not self._applies(data, "energy_forces_stress"):
            return self.model.energy_forces_stress(data, graph)
        with torch.inference_mode(False):
            return self._predict(*with_volume(read_inputs(data, self.model.parameter_like())), graph)

    def forget(self) -> None:
        """Record everything anew."""
        self._recordings: dict[tuple, Recording | TrainingRecording | None] = {}  # None where there can be none
        self._calls: Counter = Counter()  # since the last recording
        self._watched: _Watched | None = None
        self._failed: set[bool] = set()  # whether the model was training where it could not be recorded

    def __getstate__(self) -> dict:
        return {"model": self.model, "after": self.after}

    def __setstate__(self, state: dict) -> None:
        self.__init__(**state)

    def _applies(self, data: Any, method: str) -> bool:
        model, weight = self.model, self.model.parameter_like()
        if weight.device.type != self.device:
            return False
        if self._watched is None or self._watched.changed():
            self.forget()
            self._watched = _Watched(model)
        return (
            model.training not in self._failed
            and not (model.training and (not torch.is_grad_enabled() or _by_positions(data)))
            and not (torch.compiler.is_compiling() or torch.is_autocast_enabled(self.device))
            and not torch._C._len_torch_dispatch_stack()
            and model.hparams.get("kernels", True)
            and not checks_are_on(weight)
            and not self._watched.has_script
            and not self._watched.has_hooks()
            and getattr(type(model), method) is getattr(GraphNetwork3D, method)
            and method not in vars(model)
        )

    def _predict(self, inputs: Inputs, volume: Tensor | None, graph: Graph | None) -> tuple[Tensor, ...]:
        system = System(inputs, self.model.neighbors(inputs) if graph is None else graph, volume)
        tensors = system.tensors()
        kind = (*kind_of(tensors, inputs.num_graphs), *self._watched.modes())
        recording = self._recordings.get(kind)
        if recording and recording.serves(system.sizes()):
            return recording(tensors)
        with torch.enable_grad():
            results = with_forces(self.model._predict, inputs, system.graph, self.model.training, volume)
        self._calls[kind] += 1
        comes_often = kind not in self._recordings and self._calls[kind] >= self.after
        if comes_often and system.can_be_recorded() and results[0].any():  # of zeros all bits are the same
            self._record(kind, system, results)
        return results

    def _record(self, kind: tuple, system: System, results: tuple[Tensor, ...]) -> None:
        """results: the model's, which those of the recording have to equal."""
        if len(self._recordings) >= MOST:
            del self._recordings[next(iter(self._recordings))]
        self._recordings[kind] = None
        self._calls.clear()
        training = self.model.training
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad] if training else []
        if training and not parameters:
            return
        recording: Recording | TrainingRecording
        try:
            if training:
                recording = TrainingRecording(self.model, system, results, parameters)
            else:
                recording = Recording(self.model, system)
            found = recording(system.tensors())
        except Exception as error:  # whatever a model does that cannot be written down
            self._failed.add(training)
            reason = (str(error) or type(error).__name__).splitlines()[0]
            name = type(self.model).__name__
            warnings.warn(f"{name} cannot be recorded, so that small systems take longer: {reason}", stacklevel=4)
            return
        if _same(found, results, parameters):
            self._recordings[kind] = recording


def _by_positions(data: Any) -> bool:
    """Whether gradients by positions or cells are wanted."""
    return any(getattr(entry(data, name), "requires_grad", False) for name in ("pos", "cell"))


def _same(found: tuple[Tensor, ...], expected: tuple[Tensor, ...], parameters: list[nn.Parameter]) -> bool:
    """Whether results, and gradients by the parameters if there are any, are equal bit by bit."""
    if not all(map(torch.equal, found, expected)):
        return False
    if not parameters:
        return True
    cotangents = [torch.linspace(-1, 1, x.numel(), dtype=x.dtype).reshape(x.shape) for x in expected]
    of_found, of_expected = (
        torch.autograd.grad(results, parameters, cotangents, retain_graph=True, materialize_grads=True)
        for results in (found, expected)
    )
    return all(map(torch.equal, of_found, of_expected))


class _Watched:
    """The modules, parameters, buffers and hooks of a model, looked at in every call."""

    def __init__(self, model: GraphNetwork3D):
        modules = list(model.modules())
        # TorchScript shows other objects in every look at a module, and runs it by means of its own.
        self.modules = [module for module in modules if not isinstance(module, torch.jit.ScriptModule)]
        self.has_script = len(self.modules) < len(modules)
        places = [p for module in self.modules for p in (module._parameters, module._buffers, module._modules)]
        self.sizes = [(place, len(place)) for place in places]
        self.parts = [(place, name, part) for place in places for name, part in place.items()]
        self.tensors = [part for _, _, part in self.parts if isinstance(part, Tensor)]
        self.hooks = [
            hooks
            for m in self.modules
            for hooks in (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks, m._backward_pre_hooks)
        ]

    def changed(self) -> bool:
        """Whether there is another module or tensor in the place of one, more of them or fewer."""
        return any(place.get(name) is not part for place, name, part in self.parts) or any(
            len(place) != size for place, size in self.sizes
        )

    def has_hooks(self) -> bool:
        return (
            any(self.hooks)
            or any(tensor._backward_hooks for tensor in self.tensors)
            or nn.modules.module._has_any_global_hook()
        )

    def modes(self) -> list[bool]:
        """Which modules are training, and which of the tensors want a gradient where the model is."""
        training = [module.training for module in self.modules]
        return training + [tensor.requires_grad for tensor in self.tensors] if training[0] else training
