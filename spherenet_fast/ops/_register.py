"""The compiled library, and how shapes (fakes) and derivatives of its operators are registered with torch.

A differentiable operator X is three: X, X_backward, X_double_backward. A double backward's tangents are the cotangents
of the backward's outputs; third derivatives do not exist, and asking for one raises.
"""

from collections.abc import Callable
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from .. import _library

_library.load()
compiled = getattr(torch.ops, _library.NAMESPACE)


CPU_ONLY: set[str] = set()  # every other operator has a kernel of the library for each device of the build


def cpu_only(*names: str) -> None:
    """Lists operators without kernels for a GPU in the library."""
    CPU_ONLY.update(names)


def fake(name: str) -> Callable:
    """Registers the decorated function as the one that gives the shapes of the results of operator `name`.

    Raises ImportError if the compiled library has no such operator.
    """
    if not hasattr(compiled, name):
        raise ImportError(
            f"spherenet_fast: expected a compiled library with the operator {name}, got one that was built without it; "
            "build it again: python setup.py build_ext --inplace"
        )
    return torch.library.register_fake(f"{_library.NAMESPACE}::{name}")


def _node_name(name: str) -> str:
    """Of operator `name` in autograd's graph, before "Backward"."""
    return f"{_library.NAMESPACE}_{name}"


_autograd = torch.library.Library(_library.NAMESPACE, "FRAGMENT")


def derivative(name: str, backward: Callable, setup_context: Callable) -> None:
    """Registers the derivative of operator `name`, whose schema has no default values and no lists of tensors.

    The arguments are those of `torch.library.register_autograd`, which registers the same, but looks the whole schema
    up in every call: 70 us for an operator with twenty arguments.
    """
    operator = getattr(compiled, name).default

    def computed(*inputs):
        with torch._C._AutoDispatchBelowAutograd():
            return operator(*inputs)

    def forward(ctx, *inputs):
        output = computed(*inputs)
        setup_context(ctx, inputs, output)
        return output

    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    function = type(_node_name(name), (torch.autograd.Function,), methods)

    def kernel(*inputs):
        differentiable = torch.is_grad_enabled() and torch._C._any_requires_grad(*inputs)
        return function.apply(*inputs) if differentiable else computed(*inputs)

    _autograd.impl(name, kernel, "Autograd")


def full_precision(name: str) -> None:
    """Lower precision has no kernels: under autocast operator `name` runs in float32."""
    for device in ("cpu", "cuda"):
        torch.library.register_autocast(f"{_library.NAMESPACE}::{name}", device, torch.float32)


def twice_differentiable(
    name: str, backward: Callable, double_backward: Callable, tensors: int, cotangents: int = 1
) -> None:
    """Registers both derivatives of operator `name`, the error of the third, and full precision under autocast.

    Tensors come first among the inputs. In `backward` and `double_backward` they are ctx.saved_tensors, in the latter
    after the cotangents, and the inputs after them are ctx.numbers. A gradient that is 0 may come as None.

    Args:
        backward: (ctx, *gradients of the results) -> gradients of the inputs.
        double_backward: the same for `{name}_backward`, whose inputs are the cotangents and those of `name`.
        tensors: how many inputs of `name` are tensors.
        cotangents: how many results it has.
    """
    derivative(name, backward, _save_inputs(tensors))
    derivative(f"{name}_backward", double_backward, _save_inputs(cotangents + tensors))
    derivative(f"{name}_double_backward", no_third_derivative, lambda ctx, inputs, output: None)
    full_precision(name)


def no_third_derivative(ctx, *grads):
    raise RuntimeError("spherenet_fast: third derivatives do not exist")


def _save_inputs(tensors: int) -> Callable:
    """A setup_context that saves the first `tensors` inputs and keeps the others, which are numbers."""

    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs[:tensors])
        ctx.numbers = inputs[tensors:]
        ctx.set_materialize_grads(False)

    return setup_context


_depends: dict[tuple[str, int], tuple[int, ...]] = {}  # (autograd's name of an operator, result) -> inputs


def depends_on(name: str, result: int, inputs: tuple[int, ...]) -> None:
    """Says that of the differentiable inputs of operator `name` its `result` depends on `inputs` alone."""
    _depends[f"{_node_name(name)}Backward", result] = inputs


def wanted_gradients(ctx) -> list[bool]:
    """Of which inputs of a backward's node this very backward wants the gradient.

    Forces need the gradient for the positions alone, while the weights require theirs later on: `needs_input_grad`
    cannot tell, the engine can.
    """

    def wanted(node, result):
        try:
            executed = torch._C._will_engine_execute_node(node)
        except RuntimeError:  # a leaf that torch.autograd.grad was asked for
            return True
        inputs = _depends.get((node.name(), result))
        if not executed or inputs is None:
            return executed
        sources = (node.next_functions[place] for place in inputs)
        return any(source[0] is not None and wanted(*source) for source in sources)

    nodes = (pair for pair in ctx.next_functions if pair[0] is not None)  # one for every input that needs a gradient
    return [needed and wanted(*next(nodes)) for needed in ctx.needs_input_grad]


_keeps_layers = ContextVar("keeps_layers", default=False)


@contextmanager
def layers_kept():
    """Within it traced code keeps this package's layers: what is recorded runs here, as it is."""
    token = _keeps_layers.set(True)
    try:
        yield
    finally:
        _keeps_layers.reset(token)


def traced() -> bool:
    """Whether code is compiled or traced, by what chooses its products itself."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or (torch._C._len_torch_dispatch_stack() > 0 and not _keeps_layers.get())  # make_fx and its like
    )


def autocast_on(x: Tensor) -> bool:
    """Whether products on the device of x have the precision of autocast."""
    device = x.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def left_to_torch(x: Tensor) -> bool:
    """Whether layers on x are torch's: where code is traced, and under autocast, where they have another precision."""
    return traced() or autocast_on(x)


def graph_arrays(graph) -> tuple[Tensor, ...]:
    """The five arrays of a graph that the compiled operators take."""
    return graph.in_ptr, graph.out_ptr, graph.out_edge, graph.rev, graph.triplet_ptr
