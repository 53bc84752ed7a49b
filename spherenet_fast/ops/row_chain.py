"""Layers that treat every row alone, as one operator: a tile of rows goes through all of them at once.

On the CPU its kernels are the library's, on a GPU Triton's, where that is installed (`triton_kernels`).

A function of rows is written once, for tensors, and works for both: `row_chain(function, *rows)` calls it with
placeholders that record what is done to them, and runs the record. Elsewhere it is called with the tensors.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from . import triton_kernels
from ._register import autocast_on, compiled, cpu_only, fake, no_third_derivative, traced, wanted_gradients
from .product import product
from .silu import silu

cpu_only("row_chain", "row_chain_backward", "row_chain_double_backward")


def row_chain(function: Callable, *rows: Tensor, recompute: bool = False) -> tuple[Tensor, ...]:
    """function(*rows), which treats every row alone, without its temporaries; twice differentiable.

    rows: tensors of two dimensions, [M, ...]. `function` returns a tuple of tensors with M rows. It may apply `linear`,
    `linear_silu` and `radial_filter`, and add a tensor to the result of a layer, once: x + linear_silu(x, weight).
    Each of its results is the result of a layer. With `recompute` nothing is stored for the backward pass but rows and
    results: it takes half as long again, and the memory of a tile of rows (on a GPU of one chain). Under autocast on a
    GPU products have its precision, and results are float32. Raises TypeError for anything else, or
    AttributeError, as for the shape of a row.
    """
    if rows[0].shape[0] == 0 or not _has_kernels(rows[0]):
        return function(*rows)
    record = _Record(len(rows))
    results = function(*(Row(record, number) for number in range(len(rows))))
    steps, weights, biases = record.finished(results), record.weights, record.biases
    if not rows[0].is_cpu:
        given = rows, weights, biases
        if autocast_on(rows[0]):
            given = triton_kernels.under_autocast(*given)
        if not triton_kernels.takes(*given):
            return function(*rows)
        rows, weights, biases = given
    tensors = [*rows, *weights, *(bias for bias in biases if bias is not None)]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return _RowChain.apply(steps, recompute, *rows, *weights, *biases)[: len(results)]
    return tuple(compiled.row_chain(rows, weights, _or_empty(biases, rows[0]), steps.numbers, False))


def _has_kernels(x: Tensor) -> bool:
    """Whether chains of rows like x may run as one operator."""
    return not traced() and ((x.is_cpu and not autocast_on(x)) or (x.is_cuda and triton_kernels.AVAILABLE))


class Row:
    """What stands for a tensor [M, width] while a chain is recorded."""

    def __init__(self, record: "_Record", number: int):
        self._record, self._number = record, number

    def linear(self, weight: Tensor, bias: Tensor | None = None, with_silu: bool = False) -> "Row":
        return self._record.layer(self, weight, bias, with_silu)

    def filtered(self, features: "Row", weight: Tensor) -> "Row":
        return self._record.layer(features, weight, None, False) * self

    def __getattr__(self, name: str):
        raise AttributeError(f"row_chain: expected layers, radial filters and sums of rows alone, got .{name}")

    def __add__(self, other: "Row") -> "Row":
        return self._record.combine(self, other, _ADD)

    def __mul__(self, other: "Row") -> "Row":
        return self._record.combine(self, other, _MULTIPLY)


_ADD, _MULTIPLY = 1, 2


class _Steps(NamedTuple):
    """What the compiled operators are told of a chain besides its tensors."""

    inputs: int
    numbers: list[int]  # of each step: source, silu, combine, other, whether it is a result
    results: list[int]  # the steps that are results
    used: list[bool]  # whether a later step takes the value of this one

    @property
    def count(self) -> int:
        return len(self.numbers) // 5


def _layers_of(numbers: list[int]) -> list[list[int]]:
    """source, silu, combine, other, is_result of each step."""
    return [numbers[first : first + 5] for first in range(0, len(numbers), 5)]


class _Record:
    def __init__(self, inputs: int):
        self.inputs = inputs
        self.steps: list[list[int]] = []
        self.used: list[bool] = []
        self.weights: list[Tensor] = []
        self.biases: list[Tensor | None] = []

    def layer(self, source: Row, weight: Tensor, bias: Tensor | None, with_silu: bool) -> Row:
        if not isinstance(weight, Tensor) or not isinstance(bias, Tensor | None):
            raise TypeError("row_chain: expected a weight and a bias that are tensors and no values of a chain")
        self.steps.append([self._use(source), int(with_silu), 0, -1, 0])
        self.used.append(False)
        self.weights.append(weight)
        self.biases.append(bias)
        return Row(self, self.inputs + len(self.steps) - 1)

    def combine(self, a: Row, b: Row, how: int) -> Row:
        """The result of the last layer, which is `a` or `b` and from now on the combination."""
        last = self.inputs + len(self.steps) - 1
        row, other = (a, b) if getattr(a, "_number", None) == last else (b, a)
        step = self.steps[-1] if self.steps else None
        if not isinstance(other, Row) or row._number != last or step is None or step[2] or self.used[-1]:
            raise TypeError("row_chain: expected the result of the layer before, once, as one of two that are combined")
        row._number = None  # what it was is nowhere
        step[2], step[3] = how, self._use(other)
        return Row(self, last)

    def finished(self, results) -> _Steps:
        if not isinstance(results, tuple):
            raise TypeError(f"row_chain: expected a function that returns a tuple, got {type(results).__name__}")
        used = list(self.used)  # by steps
        numbers = [self._use(row) - self.inputs for row in results]
        if min(numbers, default=-1) < 0 or sorted(set(numbers)) != numbers:
            raise TypeError("row_chain: expected results of layers, in the order of the layers, got something else")
        for number in numbers:
            self.steps[number][4] = 1
        return _Steps(self.inputs, [number for step in self.steps for number in step], numbers, used)

    def _use(self, row: Row) -> int:
        if not isinstance(row, Row) or row._record is not self or row._number is None:
            raise TypeError(f"row_chain: expected a value of this chain, got {row!r}")
        if row._number >= self.inputs:
            self.used[row._number - self.inputs] = True
        return row._number


# ---- derivatives -----------------------------------------------------------------------------------------------------
# h, the layers' results before the activation, are results, too, so that what a second derivative finds for them joins
# the cotangents before the products of the backward pass, not after. An empty tensor stands for what is absent.


def _or_empty(tensors, like: Tensor) -> list[Tensor]:
    empty = like.new_empty(0)
    return [empty if tensor is None else tensor for tensor in tensors]


def _split(tensors, *sizes: int) -> list[list]:
    parts, first = [], 0
    for size in sizes:
        parts.append(list(tensors[first : first + size]))
        first += size
    return parts


def _asked(gradients, wanted: list[bool]) -> tuple[Tensor | None, ...]:
    """The gradients that are wanted and are there."""
    return tuple(
        gradient if yes and gradient is not None and gradient.numel() else None
        for gradient, yes in zip(gradients, wanted)
    )


class _RowChain(torch.autograd.Function):
    """steps, rows, weights, biases -> results, h, the latter unless they are to be found again."""

    @staticmethod
    def forward(ctx, steps: _Steps, recompute: bool, *tensors: Tensor | None):
        rows, weights, biases = _split(tensors, steps.inputs, steps.count, steps.count)
        out = compiled.row_chain(rows, weights, _or_empty(biases, rows[0]), steps.numbers, not recompute)
        results, h = out[: len(steps.results)], out[len(steps.results) :] or [None] * steps.count
        at_hand = {k: result for k, result in zip(steps.results, results, strict=True) if steps.used[k]}
        ctx.save_for_backward(*tensors, *h, *(at_hand.get(k) for k in range(steps.count)))
        ctx.steps, ctx.recompute = steps, recompute
        ctx.set_materialize_grads(False)
        return tuple(out)

    @staticmethod
    def backward(ctx, *grads: Tensor | None):
        if all(grad is None for grad in grads):
            return (None,) * len(ctx.needs_input_grad)
        _, _, *wanted = wanted_gradients(ctx)
        second = torch.is_grad_enabled()  # a second derivative may follow where this one is recorded
        if ctx.recompute:
            grads += (None,) * ctx.steps.count  # of h
        if _batched(grads) or (ctx.recompute and second):
            return None, None, *_backward_of_layers(ctx.steps, wanted, grads, ctx.saved_tensors)
        of_inputs = _RowChainBackward.apply(ctx.steps, wanted, second, *grads, *ctx.saved_tensors)
        return None, None, *of_inputs


class _RowChainBackward(torch.autograd.Function):
    """Cotangents of results and h, then what `_RowChain` has saved -> gradients of rows, weights and biases."""

    @staticmethod
    def forward(ctx, steps: _Steps, wanted: list[bool], keep: bool, *tensors: Tensor | None):
        n = steps.count
        ctx.steps, ctx.sizes = steps, (len(steps.results), n, steps.inputs, n, n, n, n)
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        grads, *others = _split(tensors, *ctx.sizes)
        of_step = dict(zip(steps.results, grads, strict=True))
        grads_h, rows, weights, biases, h, known = others
        like = rows[0]
        out = compiled.row_chain_backward(
            _or_empty([of_step.get(k) for k in range(n)], like), _or_empty(grads_h, like), rows, weights,
            _or_empty(biases, like), _or_empty(h, like), _or_empty(known, like), steps.numbers,
            [int(yes) for yes in wanted[: steps.inputs]], any(wanted[steps.inputs :]), keep,
        )  # fmt: skip
        ctx.grad_values = out[len(wanted) :]
        return _asked(out, wanted)

    @staticmethod
    def backward(ctx, *tangents: Tensor | None):
        if all(tangent is None for tangent in tangents):
            return (None,) * len(ctx.needs_input_grad)
        wanted = wanted_gradients(ctx)[3:]
        _, for_grads_h, *_ = _split(wanted, *ctx.sizes)
        if any(for_grads_h):  # they come from a double backward
            no_third_derivative(ctx)
        steps, tensors = ctx.steps, ctx.saved_tensors
        _, _, rows, *_ = _split(tensors, *ctx.sizes)
        of_rows, of_parameters = tangents[: steps.inputs], tangents[steps.inputs :]
        if any(tangent is not None for tangent in of_parameters) or _batched(of_rows):
            grads = _DoubleBackwardOfLayers.apply(steps, ctx.sizes, wanted, *tangents, *tensors)
        else:
            given = _or_empty(of_rows, rows[0])
            grads = _RowChainDoubleBackward.apply(steps, ctx.sizes, wanted, *given, *ctx.grad_values, *tensors)
        return None, None, None, *grads


class _RowChainDoubleBackward(torch.autograd.Function):
    """Cotangents of the rows' gradients, cotangents of all values, what `_RowChainBackward` has saved

    -> gradients of the results' cotangents, of rows, weights and h, and None for the others.
    """

    @staticmethod
    def forward(ctx, steps: _Steps, sizes: tuple[int, ...], wanted: list[bool], *tensors: Tensor | None):
        n = steps.count
        tangents, grad_values, grads, grads_h, rows, weights, biases, h, known = _split(
            tensors, steps.inputs, n, *sizes
        )
        like = rows[0]
        _, _, _, for_weights, *_ = _split(wanted, *sizes)
        out = compiled.row_chain_double_backward(
            tangents, grad_values, rows, weights, _or_empty(biases, like), h, _or_empty(known, like), steps.numbers,
            any(for_weights),
        )  # fmt: skip
        of_values, of_rows, of_weights, of_h = _split(out, n, steps.inputs, n, n)
        of_grads = [of_values[k] for k in steps.results]
        none = [None] * n
        gradients = [*of_grads, *none, *of_rows, *of_weights, *none, *of_h, *none]
        return _asked(gradients, wanted)

    backward = staticmethod(no_third_derivative)


class _DoubleBackwardOfLayers(torch.autograd.Function):
    """The same where there are cotangents of the parameters' gradients, or many cotangents at once: of the layers one
    after the other."""

    @staticmethod
    def forward(ctx, steps: _Steps, sizes: tuple[int, ...], wanted: list[bool], *tensors: Tensor | None):
        given = steps.inputs + 2 * steps.count
        tangents, saved = tensors[:given], tensors[given:]
        leaves = [tensor if tensor is None else tensor.detach().requires_grad_() for tensor in saved]
        grads, _, rows, weights, biases, *_ = _split(leaves, *sizes)
        with torch.enable_grad():
            values, _ = _layers(steps, rows, weights, biases)
            pairs = [(values[k], grad) for k, grad in zip(steps.results, grads, strict=True) if grad is not None]
            asked, cotangents = zip(*((x, t) for x, t in zip([*rows, *weights, *biases], tangents) if t is not None))
            outputs, grad_outputs = zip(*pairs)
            first = torch.autograd.grad(outputs, asked, grad_outputs, create_graph=True)
        variables = [leaf for leaf, yes in zip(leaves, wanted, strict=True) if yes]
        found = iter(torch.autograd.grad(first, variables, cotangents, allow_unused=True))
        return tuple(next(found) if yes else None for yes in wanted)

    backward = staticmethod(no_third_derivative)


def _batched(tensors) -> bool:
    """Whether these are many cotangents at once, as for a Hessian with vectorize=True: torch has no way to run an
    operator on lists of tensors for each of them."""
    return any(tensor is not None and torch._C._functorch.is_legacy_batchedtensor(tensor) for tensor in tensors)


def _backward_of_layers(steps: _Steps, wanted: list[bool], grads, saved) -> tuple[Tensor | None, ...]:
    """What `_RowChainBackward` finds, of the layers one after the other."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # a tensor may be there twice: each place has a gradient of its own
        inputs = [t if t is None else t.view_as(t) for t in saved[: len(wanted)]]
        values, h = _layers(steps, *_split(inputs, steps.inputs, steps.count, steps.count))
        results = [values[k] for k in steps.results]
        pairs = [(y, grad) for y, grad in zip([*results, *h], grads, strict=True) if grad is not None]
        outputs, grad_outputs = zip(*pairs)
        asked = [tensor for tensor, yes in zip(inputs, wanted, strict=True) if yes]
        found = iter(torch.autograd.grad(outputs, asked, grad_outputs, create_graph=create_graph, allow_unused=True))
    return tuple(next(found) if yes else None for yes in wanted)


def _layers(steps: _Steps, rows: list[Tensor], weights: list[Tensor], biases: list[Tensor | None]) -> tuple[list, list]:
    """The values of all steps and h, layer by layer."""
    values, before = list(rows), []
    for (source, with_silu, combine, other, _), weight, bias in zip(
        _layers_of(steps.numbers), weights, biases, strict=True
    ):
        x = values[source]
        before.append(product(x, weight.to(x.dtype), bias))  # a weight may have a lower precision on a GPU
        value = silu(before[-1]) if with_silu else before[-1]
        if combine:
            value = value + values[other] if combine == _ADD else value * values[other]
        values.append(value)
    return values[steps.inputs :], before


# ---- shapes ----------------------------------------------------------------------------------------------------------


@fake("row_chain")
def _(rows, weights, biases, steps, save):
    num_rows, widths = rows[0].shape[0], [weight.shape[0] for weight in weights]
    kept = [width for k, width in enumerate(widths) if steps[5 * k + 4]] + (widths if save else [])
    return [rows[0].new_empty(num_rows, width) for width in kept]


def _empty(tensor: Tensor, present: bool) -> Tensor:
    return tensor.new_empty(tensor.shape if present else (0,))


@fake("row_chain_backward")
def _(grads, grads_h, rows, weights, biases, h, results, steps, wanted, of_weights, keep):
    layers, inputs = _layers_of(steps), len(rows)
    reached, active = set(), [False] * len(layers)
    for k, (source, _, _, other, _) in reversed(list(enumerate(layers))):
        active[k] = bool(inputs + k in reached or grads[k].numel() or grads_h[k].numel())
        reached |= {source, other} if active[k] else set()
    of_rows = [_empty(row, bool(yes) and v in reached) for v, (row, yes) in enumerate(zip(rows, wanted, strict=True))]
    of_parameters = [
        _empty(tensor, of_weights and yes) for tensors in (weights, biases) for tensor, yes in zip(tensors, active)
    ]
    return of_rows + of_parameters + ([_empty(tensor, yes) for tensor, yes in zip(h, active)] if keep else [])


@fake("row_chain_double_backward")
def _(tangents, grad_values, rows, weights, biases, h, results, steps, of_weights):
    layers, inputs = _layers_of(steps), len(rows)
    moves = {number for number, tangent in enumerate(tangents) if tangent.numel()}
    factors, of_parameters = set(), []
    for k, (source, _, combine, other, _) in enumerate(layers):
        if moves & {source, other}:
            moves.add(inputs + k)
        if combine == _MULTIPLY and source in moves:
            factors.add(other)
        of_parameters.append(_empty(weights[k], bool(of_weights and source in moves and grad_values[k].numel())))
    for k, (*_, other, _) in reversed(list(enumerate(layers))):
        factors |= {other} if inputs + k in factors else set()
    of_values = [_empty(tensor, bool(layer[4])) for tensor, layer in zip(h, layers, strict=True)]
    of_rows = [_empty(row, number in factors) for number, row in enumerate(rows)]
    return of_values + of_rows + of_parameters + [_empty(tensor, True) for tensor in h]
