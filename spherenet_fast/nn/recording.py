"""The operators of a prediction with its derivatives, written down once, for any number of edges and triplets."""

from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from ..graph import Graph
from ..ops._register import compiled, layers_kept
from ..ops.product import by_inner
from .derivatives import with_forces
from .framework import GraphNetwork3D
from .inputs import Inputs

_EDGES = {"edge_index": 1, "shift": 0, "out_edge": 0, "rev": 0, "present": 0, "triplets": 0}  # dimensions of any size
_WEIGHTS = {compiled.row_chain.default: 1, compiled.product.default: 1}  # the argument of the weights of products


class Recording:
    """`with_forces` of a model in evaluation mode, for systems of one kind.

    In two parts: what depends on weights alone, which is computed again when they change, and the rest.

    Raises whatever a model raises that looks at values of tensors, or of which the sizes are not all that matters.
    """

    def __init__(self, model: GraphNetwork3D, inputs: Inputs, volume: Tensor | None, graph: Graph):
        arguments = _arguments(inputs, volume, graph)

        def function(*tensors: Tensor) -> tuple[Tensor, ...]:
            given = dict(zip(arguments, tensors, strict=True))
            num_triplets = given.pop("triplets").shape[0]
            found = Graph(**{name: given.get(name) for name in Graph._fields} | {"num_triplets": num_triplets})
            system = Inputs(given["z"], given["pos"], given["batch"], inputs.num_graphs, given.get("cell"), None)
            with torch.enable_grad():
                return with_forces(model._predict, system, found, False, given.get("volume"))

        traced, self.guards = _traced(function, arguments)
        self.of_weights, self.rest = _split(traced)
        self.constants: tuple[Tensor, ...] = ()
        self.versions: Any = None

    @staticmethod
    def kind(inputs: Inputs, volume: Tensor | None, graph: Graph) -> tuple:
        """Equal for systems that one recording serves."""
        shapes = [
            (name, tensor.dtype, *(size for d, size in enumerate(tensor.shape) if d != _EDGES.get(name)))
            for name, tensor in _arguments(inputs, volume, graph).items()
        ]
        return (inputs.num_graphs, *shapes)

    @staticmethod
    def is_possible(graph: Graph) -> bool:
        """Whether the sizes of this graph can stand for all others."""
        edges, triplets = len(graph.rev), graph.num_triplets
        return edges > 1 and triplets > 1 and edges != triplets

    def __call__(self, inputs: Inputs, volume: Tensor | None, graph: Graph, versions: Any) -> tuple[Tensor, ...] | None:
        """The results, or None for sizes that it does not serve. versions: what changes with the weights."""
        if not self.guards(len(graph.rev), graph.num_triplets):
            return None
        with torch.no_grad(), torch._C._AutoDispatchBelowAutograd():
            if versions != self.versions:
                self.constants, self.versions = self.of_weights(), versions
            return tuple(self.rest(*_arguments(inputs, volume, graph).values(), *self.constants))


def _arguments(inputs: Inputs, volume: Tensor | None, graph: Graph) -> dict[str, Tensor]:
    """All tensors by name, dense; the number of triplets as the size of one."""
    given = {"z": inputs.z, "pos": inputs.pos.detach(), "batch": inputs.batch, "cell": inputs.cell, "volume": volume}
    given |= graph._asdict()
    given["triplets"] = inputs.pos.new_empty(given.pop("num_triplets"), 0)
    return {name: tensor.contiguous() for name, tensor in given.items() if tensor is not None}


class _Guards:
    """What must hold of the numbers of edges and triplets."""

    def __init__(self, env, edges, triplets):
        self.symbols = edges, triplets
        self.expressions = [guard.expr for guard in env.guards]
        self.ranges = [env.var_to_range[symbol] for symbol in self.symbols]
        self.known: dict[tuple[int, int], bool] = {}

    def __call__(self, edges: int, triplets: int) -> bool:
        sizes = edges, triplets
        if sizes not in self.known:
            if len(self.known) > 10_000:
                self.known.clear()
            values = dict(zip(self.symbols, sizes))
            inside = all(bounds.lower <= size <= bounds.upper for bounds, size in zip(self.ranges, sizes))
            self.known[sizes] = bool(inside and all(expression.subs(values) for expression in self.expressions))
        return self.known[sizes]


def _traced(function, arguments: dict[str, Tensor]) -> tuple[fx.GraphModule, _Guards]:
    from torch._dynamo.source import ConstantSource
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

    env = ShapeEnv()
    mode = FakeTensorMode(shape_env=env, allow_non_fake_inputs=True)

    def fake(name: str, tensor: Tensor) -> Tensor:
        dynamic = [DimDynamic.DUCK if d == _EDGES.get(name) else DimDynamic.STATIC for d in range(tensor.dim())]
        context = StatelessSymbolicContext(dynamic_sizes=dynamic)
        return mode.from_tensor(tensor, symbolic_context=context, source=ConstantSource(name))

    fakes = {name: fake(name, tensor) for name, tensor in arguments.items()}
    with torch.no_grad(), layers_kept():
        traced = make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True)(*fakes.values())
    edges, triplets = (fakes[name].shape[0].node.expr for name in ("rev", "triplets"))
    return traced, _Guards(env, edges, triplets)


def _split(traced: fx.GraphModule) -> tuple[fx.GraphModule, fx.GraphModule]:
    """What depends on weights alone, () -> constants, and the rest, (*arguments, *constants) -> results."""
    graph = traced.graph
    for node in graph.nodes:
        if node.target is torch.ops.aten.detach.default:
            node.replace_all_uses_with(node.args[0])
        elif node.target is torch.ops.aten.new_empty.default and 0 in node.args[1]:  # what stands for nothing
            with graph.inserting_before(node):
                of = node.meta["val"]
                nothing = graph.call_function(torch.empty, (node.args[1],), {"dtype": of.dtype})
            node.replace_all_uses_with(nothing)
    graph.eliminate_dead_code()
    fixed: dict[fx.Node, None] = {}
    changes = any(_changes_arguments(node) for node in graph.nodes)
    for node in graph.nodes:
        computed = node.op == "call_function" and not changes and not _is_random(node)
        if node.op == "get_attr" or (computed and all(source in fixed for source in node.all_input_nodes)):
            fixed[node] = None
    for node in graph.nodes:
        place = _WEIGHTS.get(node.target)
        if place is None or node in fixed:
            continue
        weights = node.args[place]
        laid = [_laid_out(graph, fixed, weight) for weight in (weights if isinstance(weights, list) else [weights])]
        node.update_arg(place, laid if isinstance(weights, list) else laid[0])

    first, second = fx.Graph(), fx.Graph()
    in_first: dict[fx.Node, fx.Node] = {}
    in_second: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node in fixed:
            in_first[node] = first.node_copy(node, in_first.__getitem__)
        elif node.op == "placeholder":
            in_second[node] = second.node_copy(node)
    constants = [node for node in fixed if any(user not in fixed for user in node.users)]
    first.output(tuple(in_first[node] for node in constants))
    for number, node in enumerate(constants):
        in_second[node] = second.placeholder(f"constant_{number}")
    for node in graph.nodes:
        if node not in fixed and node.op != "placeholder":
            in_second[node] = second.node_copy(node, in_second.__getitem__)
    return fx.GraphModule(traced, first), fx.GraphModule(traced, second)


def _laid_out(graph: fx.Graph, fixed: dict[fx.Node, None], weight: fx.Node) -> fx.Node:
    """The weight of a product as its kernel reads it, so that it need not be rearranged in every call."""
    if weight not in fixed:
        return weight
    with graph.inserting_after(weight):
        node = graph.call_function(by_inner, (weight,))
    fixed[node] = None
    return node


def _changes_arguments(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _is_random(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in node.target.tags
