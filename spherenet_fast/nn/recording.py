"""The operators of a prediction with its derivatives, written down once, for any number of edges and triplets."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx

from ..graph import Graph
from ..ops._register import compiled, layers_kept
from ..ops.product import by_inner
from .derivatives import with_forces
from .framework import MANY_EDGES, GraphNetwork3D
from .inputs import Inputs

_EDGES = {"edge_index": 1, "shift": 0, "out_edge": 0, "rev": 0, "present": 0, "triplets": 0}  # dimensions of any size
_WEIGHTS = {compiled.row_chain.default: 1, compiled.product.default: 1}  # the argument of the weights of products


class System(NamedTuple):
    """What `with_forces` is called with."""

    inputs: Inputs
    graph: Graph
    volume: Tensor | None

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, dense; the number of triplets as the size of one."""
        inputs = self.inputs
        given = {"z": inputs.z, "pos": inputs.pos.detach(), "batch": inputs.batch, "cell": inputs.cell}
        given |= {"volume": self.volume} | self.graph._asdict()
        given["triplets"] = inputs.pos.new_empty(given.pop("num_triplets"), 0)
        return {name: tensor.contiguous() for name, tensor in given.items() if tensor is not None}

    @classmethod
    def of(cls, given: dict[str, Tensor], num_graphs: int) -> "System":
        """From `tensors`."""
        num_triplets = given["triplets"].shape[0]
        graph = Graph(**{name: given.get(name) for name in Graph._fields} | {"num_triplets": num_triplets})
        inputs = Inputs(given["z"], given["pos"], given["batch"], num_graphs, given.get("cell"), None)
        return cls(inputs, graph, given.get("volume"))

    def sizes(self) -> tuple[int, int]:
        """Numbers of edges and triplets."""
        return len(self.graph.rev), self.graph.num_triplets

    def can_be_recorded(self) -> bool:
        """Whether its sizes can stand for others, of which none is special to torch and none large."""
        edges, triplets = self.sizes()
        return 1 < edges < MANY_EDGES and triplets > 1 and edges != triplets


def kind_of(tensors: dict[str, Tensor], num_graphs: int) -> tuple:
    """Equal for systems that one recording serves. tensors: a system's."""
    shapes = [
        (name, tensor.dtype, *(size for d, size in enumerate(tensor.shape) if d != _EDGES.get(name)))
        for name, tensor in tensors.items()
    ]
    return (num_graphs, *shapes)


class Recording:
    """`with_forces` of a model in evaluation mode, for systems of one kind.

    What depends on weights alone is computed again when they change, the rest in every call.

    Raises whatever a model raises that looks at values of tensors, ValueError for other models that have no recording.
    """

    def __init__(self, model: GraphNetwork3D, system: System):
        tensors, num_graphs = system.tensors(), system.inputs.num_graphs

        def function(*given: Tensor) -> tuple[Tensor, ...]:
            inputs, graph, volume = System.of(dict(zip(tensors, given, strict=True)), num_graphs)
            return with_forces(model._predict, inputs, graph, False, volume)

        traced, self.names, self.serves = _traced(function, tensors, model)
        _lay_out_weights(traced.graph)
        fixed = _of_weights(traced.graph)
        self.of_weights, self.rest = _stages(traced, {node for node in traced.graph.nodes if node not in fixed})
        self.results = _results(traced.graph)
        attributes = (getattr(traced, str(node.target)) for node in traced.graph.find_nodes(op="get_attr"))
        self.weights = list({id(tensor): tensor for tensor in attributes}.values())
        self.constants: dict[str, Any] = {}
        self.state: Any = None
        self.samples: list[np.ndarray] = []

    def __call__(self, tensors: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """tensors: a system's."""
        with torch.no_grad(), torch._C._AutoDispatchBelowAutograd():
            if self._state() != self.state:
                # samples keep the memory of their weights, so that no other takes its place
                self.samples = [tensor.detach().numpy().reshape(-1)[:1] for tensor in self.weights if tensor.numel()]
                self.constants, self.state = self.of_weights({}), self._state()
            values = self.constants | dict(zip(self.names, tensors.values(), strict=True))
            values |= self.rest(values)
        return tuple(values[name] for name in self.results)

    def _state(self) -> list:
        """What changes with the weights, a number of each among it: writes through `.data` have no version."""
        versions = [(tensor._version, tensor.data_ptr()) for tensor in self.weights]
        return [versions, [sample.item() for sample in self.samples]]


class TrainingRecording:
    """`with_forces` of a model in training, and the gradients of what follows by its parameters, once."""

    def __init__(
        self, model: GraphNetwork3D, system: System, results: tuple[Tensor, ...], parameters: list[nn.Parameter]
    ):
        """results: the model's; parameters: those of the gradients."""
        tensors, num_graphs, count = system.tensors(), system.inputs.num_graphs, len(results)
        arguments = tensors | {f"cotangent_{k}": torch.ones_like(result) for k, result in enumerate(results)}

        def function(*given: Tensor) -> tuple[Tensor | None, ...]:
            found, cotangents = given[: len(tensors)], given[len(tensors) :]
            inputs, graph, volume = System.of(dict(zip(tensors, found, strict=True)), num_graphs)
            results = with_forces(model._predict, inputs, graph, True, volume)
            return *results, *torch.autograd.grad(results, parameters, cotangents, allow_unused=True)

        traced, names, self.serves = _traced(function, arguments, model)
        self.names, self.cotangents, self.parameters = names[:-count], names[-count:], parameters
        late: set[fx.Node] = set()
        for node in traced.graph.nodes:
            if node.name in self.cotangents or any(source in late for source in node.all_input_nodes):
                late.add(node)
        self.forward, self.backward = _stages(traced, late)
        found = _results(traced.graph)
        self.results, self.gradients = found[:count], found[count:]
        self.kept = {*self.backward.inputs, *self.gradients} - {*self.cotangents, *self.backward.outputs, None}

    def __call__(self, tensors: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """tensors: a system's."""
        return _Recorded.apply(self, tensors, *self.parameters)


class _Recorded(torch.autograd.Function):
    """tensors of a system and parameters -> what `with_forces` returns."""

    @staticmethod
    def forward(ctx, recording: TrainingRecording, tensors: dict[str, Tensor], *parameters: Tensor):
        values = dict(zip(recording.names, tensors.values(), strict=True))
        with torch._C._AutoDispatchBelowAutograd():
            values |= recording.forward(values)
        kept = {name: values[name] for name in recording.kept}
        ctx.names = [name for name, value in kept.items() if isinstance(value, Tensor)]
        ctx.save_for_backward(*(kept.pop(name) for name in ctx.names))
        ctx.numbers, ctx.recording = kept, recording
        return tuple(values[name] for name in recording.results)

    @staticmethod
    def backward(ctx, *cotangents: Tensor):
        if torch.is_grad_enabled():
            raise RuntimeError("Replay: expected results that are differentiated once, got create_graph=True")
        recording = ctx.recording
        values = ctx.numbers | dict(zip(ctx.names, ctx.saved_tensors, strict=True))
        values |= {name: value.contiguous() for name, value in zip(recording.cotangents, cotangents, strict=True)}
        with torch._C._AutoDispatchBelowAutograd():
            values |= recording.backward(values)
        return None, None, *(name and values[name] for name in recording.gradients)


# ---- tracing and cutting ---------------------------------------------------------------------------------------------


class _Guards:
    """Whether a recording serves numbers of edges and triplets."""

    def __init__(self, env, *symbols):
        if not all(symbol.is_Symbol for symbol in symbols):
            raise ValueError("it takes the number of edges as a constant, as by len()")
        self.symbols = symbols
        self.expressions = [guard.expr for guard in env.guards]
        self.ranges = [env.var_to_range[symbol] for symbol in self.symbols]
        self.known: dict[tuple[int, int], bool] = {}

    def __call__(self, sizes: tuple[int, int]) -> bool:
        if sizes not in self.known:
            if len(self.known) > 10_000:
                self.known.clear()
            values = dict(zip(self.symbols, sizes, strict=True))
            inside = all(bounds.lower <= size <= bounds.upper for bounds, size in zip(self.ranges, sizes, strict=True))
            self.known[sizes] = bool(inside and all(expression.subs(values) for expression in self.expressions))
        return self.known[sizes]


def _traced(
    function: Callable, arguments: dict[str, Tensor], model: nn.Module
) -> tuple[fx.GraphModule, list[str], _Guards]:
    """The operators of `function`, the names of its arguments there, and the sizes that it serves.

    Raises ValueError, see `written_down`.
    """
    traced, fakes, env = written_down(function, arguments, model, _EDGES)
    edges, triplets = (fakes[name].shape[0].node.expr for name in ("rev", "triplets"))
    names = [node.name for node in traced.graph.find_nodes(op="placeholder")]
    return traced, names, _Guards(env, edges, triplets)


def written_down(
    function: Callable, arguments: dict[str, Tensor], model: nn.Module, any_size: Mapping[str, int], keep_layers=True
) -> tuple[fx.GraphModule, dict[str, Tensor], Any]:
    """The operators of `function`, its arguments without values, and the environment of their symbols.

    any_size: of the arguments that have one, the dimension of any size from 2 on; those of equal sizes stay equal.
    keep_layers: whether layers stay operators of this package. Operators run below autograd, and `function` may take
    derivatives. Raises ValueError for a model with random numbers, or with buffers that change, which are put back.
    """
    from torch._dynamo.source import ConstantSource
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

    env = ShapeEnv()
    mode = FakeTensorMode(shape_env=env, allow_non_fake_inputs=True)

    def fake(name: str, tensor: Tensor) -> Tensor:
        dynamic = [DimDynamic.DUCK if d == any_size.get(name) else DimDynamic.STATIC for d in range(tensor.dim())]
        context = StatelessSymbolicContext(dynamic_sizes=dynamic)
        return mode.from_tensor(tensor, symbolic_context=context, source=ConstantSource(name))

    fakes = {name: fake(name, tensor) for name, tensor in arguments.items()}

    def differentiated(*given: Tensor):
        with torch.enable_grad():
            return function(*given)

    buffers = [(buffer, buffer._version, buffer.clone()) for buffer in model.buffers()]
    with torch.no_grad(), layers_kept() if keep_layers else nullcontext():
        traced = make_fx(differentiated, tracing_mode="fake", _allow_non_fake_inputs=True)(*fakes.values())
        changed = [buffer.copy_(before) for buffer, version, before in buffers if buffer._version != version]
    graph = traced.graph
    if changed or any(_changes_attribute(node) for node in graph.nodes):
        raise ValueError("it changes its buffers")
    if any(torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()) for node in graph.nodes):
        raise ValueError("it draws random numbers")
    for node in graph.nodes:
        if node.target is torch.ops.aten.detach.default:
            node.replace_all_uses_with(node.args[0])
        elif node.target is torch.ops.aten.new_empty.default and 0 in node.args[1]:  # what stands for nothing
            with graph.inserting_before(node):
                like = node.meta["val"]
                form = {"dtype": like.dtype, "device": like.device}
                nothing = graph.call_function(torch.empty, (node.args[1],), form)
            node.replace_all_uses_with(nothing)
    graph.eliminate_dead_code()
    return traced, fakes, env


def _changes(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _changes_attribute(node: fx.Node) -> bool:
    return _changes(node) and any(source.op == "get_attr" for source in node.all_input_nodes)


def _of_weights(graph: fx.Graph) -> set[fx.Node]:
    """What no argument has a part in; attributes alone if any operator changes its arguments in place."""
    fixed: set[fx.Node] = set()
    changes = any(map(_changes, graph.nodes))
    for node in graph.nodes:
        computed = node.op == "call_function" and not changes
        if node.op == "get_attr" or (computed and all(source in fixed for source in node.all_input_nodes)):
            fixed.add(node)
    return fixed


def _lay_out_weights(graph: fx.Graph) -> None:
    """Have the weights of products as their kernels read them, so that none is rearranged in every call."""
    fixed = _of_weights(graph)

    def laid_out(weight: fx.Node) -> fx.Node:
        if weight not in fixed:
            return weight
        with graph.inserting_after(weight):
            return graph.call_function(by_inner, (weight,))

    for node in graph.nodes:
        place = _WEIGHTS.get(node.target)
        if place is not None and node not in fixed:
            node.update_arg(place, fx.node.map_arg(node.args[place], laid_out))


class _Stage(NamedTuple):
    """A part of a graph: values by name -> values by name."""

    module: fx.GraphModule
    inputs: list[str]
    outputs: list[str]

    def __call__(self, values: dict[str, Any]) -> dict[str, Any]:
        return dict(zip(self.outputs, self.module(*map(values.__getitem__, self.inputs)), strict=True))


def _stages(traced: fx.GraphModule, late: set[fx.Node]) -> list[_Stage]:
    """The graph in two parts, the second one of the nodes `late`. Each takes what it needs, arguments or earlier."""
    computed = [node for node in traced.graph.nodes if node.op not in ("placeholder", "output")]
    stages = []
    for is_late in (False, True):
        own = {node: None for node in computed if (node in late) == is_late}
        inputs = dict.fromkeys(source for node in own for source in node.all_input_nodes if source not in own)
        outputs = [node for node in own if any(user not in own for user in node.users)]
        graph = fx.Graph()
        copies = {node: graph.placeholder(node.name) for node in inputs}
        for node in own:
            copies[node] = graph.node_copy(node, copies.__getitem__)
        graph.output(tuple(copies[node] for node in outputs))
        module = fx.GraphModule(traced, graph)
        stages.append(_Stage(module, [node.name for node in inputs], [node.name for node in outputs]))
    return stages


def _results(graph: fx.Graph) -> list[str | None]:
    """Names of what the graph returns."""
    return [node and node.name for node in graph.output_node().args[0]]
