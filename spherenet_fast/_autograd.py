"""Shapes (fakes) and derivatives of the compiled operators.

Each differentiable operator X is three: X, X_backward, X_double_backward. A double backward's tangents are the
cotangents of the backward's outputs; third derivatives do not exist, and asking for one raises.
"""

import torch

from . import _library

_library.load()
_ops = torch.ops.spherenet_fast


def _fake(name):
    return torch.library.register_fake(f"spherenet_fast::{name}")


def _derivative(name, backward, setup_context):
    torch.library.register_autograd(f"spherenet_fast::{name}", backward, setup_context=setup_context)


def wanted_gradients(ctx) -> list[bool]:
    """Of which inputs of a backward's node this very backward wants the gradient.

    Forces need the gradient for the positions alone, while the weights require theirs later on: `needs_input_grad`
    cannot tell, the engine can.
    """

    def wanted(node):
        try:
            return torch._C._will_engine_execute_node(node)
        except RuntimeError:  # a leaf that torch.autograd.grad was asked for
            return True

    nodes = (node for node, _ in ctx.next_functions if node is not None)  # one for every input that needs a gradient
    return [needed and wanted(next(nodes)) for needed in ctx.needs_input_grad]


def _save_inputs(tensors):
    """A setup_context that saves the first ``tensors`` inputs and keeps the others, which are numbers."""

    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs[:tensors])
        ctx.numbers = inputs[tensors:]
        ctx.set_materialize_grads(False)

    return setup_context


# ---- radial_basis ----------------------------------------------------------------------------------------------------


@_fake("radial_basis")
def _(distance, frequency, roots, scale, cutoff, envelope_exponent):
    edges = distance.shape[0]
    return distance.new_empty(edges, frequency.shape[0]), distance.new_empty(edges, *roots.shape)


@_fake("radial_basis_backward")
def _(grad_bessel, grad_radial, distance, frequency, roots, scale, cutoff, envelope_exponent):
    return distance.new_empty(distance.shape), frequency.new_empty(frequency.shape)


@_fake("radial_basis_double_backward")
def _(grad_grad_distance, grad_grad_frequency, grad_bessel, grad_radial, distance, frequency, roots, scale, cutoff, p):
    return (
        grad_bessel.new_empty(grad_bessel.shape),
        grad_radial.new_empty(grad_radial.shape),
        distance.new_empty(distance.shape),
        frequency.new_empty(frequency.shape),
    )


def _radial_basis_backward(ctx, grad_bessel, grad_radial):
    distance, frequency, roots, scale = ctx.saved_tensors
    edges, constants = distance.shape[0], ctx.numbers
    if grad_bessel is None:
        grad_bessel = distance.new_zeros(edges, frequency.shape[0])
    if grad_radial is None:
        grad_radial = distance.new_zeros(edges, *roots.shape)
    grads = _ops.radial_basis_backward(grad_bessel, grad_radial, distance, frequency, roots, scale, *constants)
    return *grads, None, None, None, None


def _radial_basis_double_backward(ctx, grad_grad_distance, grad_grad_frequency):
    if grad_grad_distance is None and grad_grad_frequency is None:
        return (None,) * 8
    grads = _ops.radial_basis_double_backward(grad_grad_distance, grad_grad_frequency, *ctx.saved_tensors, *ctx.numbers)
    return *grads, None, None, None, None


_derivative("radial_basis", _radial_basis_backward, _save_inputs(4))
_derivative("radial_basis_backward", _radial_basis_double_backward, _save_inputs(6))


# ---- neighbor_pointers and neighbor_edges ----------------------------------------------------------------------------


@_fake("neighbor_pointers")
def _(pos, batch, cutoff, edge_capacity, pair_capacity):
    def index(size):
        return pos.new_empty(size, dtype=torch.int64)

    return index(pos.shape[0] + 1), index(pos.shape[0] + 1), index(3)


@_fake("neighbor_edges")
def _(pos, batch, in_ptr, cutoff, num_edges):
    return tuple(pos.new_empty(shape, dtype=torch.int64) for shape in ((2, num_edges), (num_edges,), (num_edges,)))


# ---- torsion_reference -----------------------------------------------------------------------------------------------


@_fake("torsion_reference")
def _(vec, in_ptr, out_ptr, out_edge, rev, pair_ptr, num_pairs):
    return vec.new_empty(num_pairs, dtype=torch.int32)


# ---- gated_sum -------------------------------------------------------------------------------------------------------
# Inputs: x, radial, direction, reference, point, four weights, five arrays of the graph, released, angle_at_receiver,
# tf32.

_DIFFERENTIABLE = (0, 1, 2, 4, 5, 6, 7, 8)
_GEOMETRY, _WEIGHTS = (1, 2, 4), (5, 6, 7, 8)
_TENSORS = 14


@_fake("gated_sum")
def _(x, *others):
    return x.new_empty(x.shape)


def _empty_gradients(inputs, geometry, weights):
    """Of all differentiable inputs; of size 0 where an input is absent or its group is not asked for."""
    geometry = geometry and inputs[_WEIGHTS[0]] is not None
    x = inputs[0]
    asked = [k == 0 or (geometry if k in _GEOMETRY else weights) for k in _DIFFERENTIABLE]
    given = [inputs[k] if yes else None for k, yes in zip(_DIFFERENTIABLE, asked, strict=True)]
    return tuple(x.new_empty(0) if t is None else t.new_empty(t.shape) for t in given)


@_fake("gated_sum_backward")
def _(grad_out, *arguments):
    *inputs, geometry, weights = arguments
    return _empty_gradients(inputs, geometry, weights)


@_fake("gated_sum_double_backward")
def _(*arguments):
    grad_out, *inputs, geometry, weights = arguments[len(_DIFFERENTIABLE) :]
    return grad_out.new_empty(grad_out.shape), *_empty_gradients(inputs, geometry, weights)


def _groups(needed, offset):
    """Whether geometry (radial, direction, point) and weights want gradients."""
    return tuple(any(needed[offset + k] for k in group) for group in (_GEOMETRY, _WEIGHTS))


def _spread(grads, inputs, needed, offset):
    """Gradients of the differentiable inputs among all inputs of an operator, None where nobody asked.

    An input that is given but plays no part (radial without weights) has an empty gradient: None, too.
    """
    out = [None] * len(needed)
    for grad, k in zip(grads, _DIFFERENTIABLE):
        if needed[k + offset] and inputs[k] is not None and grad.shape == inputs[k].shape:
            out[k + offset] = grad
    return out


def _gated_sum_backward(ctx, grad_out):
    if grad_out is None:
        return (None,) * len(ctx.needs_input_grad)
    needed, inputs = wanted_gradients(ctx), ctx.saved_tensors
    grads = _ops.gated_sum_backward(grad_out, *inputs, *ctx.numbers, *_groups(needed, 0))
    return tuple(_spread(grads, inputs, needed, 0))


def _gated_sum_double_backward(ctx, *tangents):
    if all(tangent is None for tangent in tangents):
        return (None,) * len(ctx.needs_input_grad)
    needed = wanted_gradients(ctx)
    grad_out, *inputs = ctx.saved_tensors
    # The backward operator returns an empty tensor for what is absent; its cotangent says nothing.
    present = [t if inputs[k] is not None else None for t, k in zip(tangents, _DIFFERENTIABLE)]
    present = [None if t is not None and t.shape != inputs[k].shape else t for t, k in zip(present, _DIFFERENTIABLE)]
    flags = ctx.numbers[:3]  # without those of the groups that the backward pass was asked for
    grad_grad_out, *grads = _ops.gated_sum_double_backward(*present, grad_out, *inputs, *flags, *_groups(needed, 1))
    out = _spread(grads, inputs, needed, 1)
    out[0] = grad_grad_out
    return tuple(out)


_derivative("gated_sum", _gated_sum_backward, _save_inputs(_TENSORS))
_derivative("gated_sum_backward", _gated_sum_double_backward, _save_inputs(_TENSORS + 1))


# ---- smooth_torsion --------------------------------------------------------------------------------------------------
# Inputs: direction, fade, five arrays of the graph, num_pairs, even.


@_fake("smooth_torsion")
def _(direction, fade, in_ptr, out_ptr, out_edge, rev, pair_ptr, num_pairs, even):
    return direction.new_empty(2, num_pairs)


@_fake("smooth_torsion_backward")
def _(grad_point, direction, fade, *others):
    return direction.new_empty(direction.shape), fade.new_empty(fade.shape)


@_fake("smooth_torsion_double_backward")
def _(grad_grad_direction, grad_grad_fade, grad_point, direction, fade, *others):
    return tuple(tensor.new_empty(tensor.shape) for tensor in (grad_point, direction, fade))


def _smooth_torsion_backward(ctx, grad_point):
    if grad_point is None:
        return (None,) * 9
    return *_ops.smooth_torsion_backward(grad_point, *ctx.saved_tensors, *ctx.numbers), *[None] * 7


def _smooth_torsion_double_backward(ctx, *tangents):
    if all(tangent is None for tangent in tangents):
        return (None,) * 10
    return *_ops.smooth_torsion_double_backward(*tangents, *ctx.saved_tensors, *ctx.numbers), *[None] * 7


_derivative("smooth_torsion", _smooth_torsion_backward, _save_inputs(7))
_derivative("smooth_torsion_backward", _smooth_torsion_double_backward, _save_inputs(8))


# ---- segment_sum and gather ------------------------------------------------------------------------------------------


@_fake("segment_sum")
def _(x, ptr, index, segment):
    return x.new_empty(ptr.shape[0] - 1, x.shape[1])


@_fake("gather")
def _(x, index, ptr, perm):
    return x.new_empty(index.shape[0], x.shape[1])


def _segments(ptr, index, rows):
    """The segment of every row [rows], the transpose of ptr [N+1] and index [rows] or None; -1 for a row of none."""
    row = torch.arange(rows, device=ptr.device)
    segment = torch.searchsorted(ptr[1:].contiguous(), row, right=True)
    segment = torch.where(row < ptr[-1], segment, -1)
    return segment if index is None else torch.empty_like(segment).index_copy(0, index, segment)


def _segment_sum_context(ctx, inputs, output):
    x, ptr, index, segment = inputs
    ctx.save_for_backward(ptr, index, segment)
    ctx.rows = x.shape[0]


def _segment_sum_backward(ctx, grad):
    ptr, index, segment = ctx.saved_tensors
    if segment is None:
        segment = _segments(ptr, index, ctx.rows if index is None else index.shape[0])
    return _ops.gather(grad, segment, ptr, index), None, None, None


def _gather_context(ctx, inputs, output):
    _, index, ptr, perm = inputs
    ctx.save_for_backward(index, ptr, perm)


def _gather_backward(ctx, grad):
    index, ptr, perm = ctx.saved_tensors
    return _ops.segment_sum(grad, ptr, perm, index), None, None, None


_derivative("segment_sum", _segment_sum_backward, _segment_sum_context)
_derivative("gather", _gather_backward, _gather_context)


# ---- silu ------------------------------------------------------------------------------------------------------------


@_fake("silu")
def _(x):
    return x.new_empty(x.shape)


@_fake("silu_backward")
def _(grad, x):
    return x.new_empty(x.shape)


@_fake("silu_double_backward")
def _(grad_grad_x, grad, x):
    return x.new_empty(x.shape), x.new_empty(x.shape)


def _silu_backward(ctx, grad):
    return None if grad is None else _ops.silu_backward(grad, *ctx.saved_tensors)


def _silu_double_backward(ctx, grad_grad_x):
    return (None, None) if grad_grad_x is None else _ops.silu_double_backward(grad_grad_x, *ctx.saved_tensors)


_derivative("silu", _silu_backward, _save_inputs(1))
_derivative("silu_backward", _silu_double_backward, _save_inputs(2))


# ---- radial_gate -----------------------------------------------------------------------------------------------------


@_fake("radial_gate")
def _(x, bessel, weight):
    return x.new_empty(x.shape)


def _empty_if(wanted, tensor):
    return tensor.new_empty(tensor.shape if wanted else (0,))


@_fake("radial_gate_backward")
def _(grad_out, x, bessel, weight, for_bessel, for_weight):
    return x.new_empty(x.shape), _empty_if(for_bessel, bessel), _empty_if(for_weight, weight)


@_fake("radial_gate_double_backward")
def _(grad_grad_x, grad_grad_bessel, grad_grad_weight, grad_out, x, bessel, weight, for_bessel, for_weight):
    grads = _empty_if(for_bessel, bessel), _empty_if(for_weight, weight)
    return x.new_empty(x.shape), x.new_empty(x.shape), *grads


def _radial_gate_backward(ctx, grad_out):
    if grad_out is None:
        return None, None, None
    wanted = wanted_gradients(ctx)
    grads = _ops.radial_gate_backward(grad_out, *ctx.saved_tensors, *wanted[1:])
    return tuple(grad if yes else None for grad, yes in zip(grads, wanted, strict=True))


def _radial_gate_double_backward(ctx, *tangents):
    if all(tangent is None for tangent in tangents):
        return (None,) * 6
    wanted = wanted_gradients(ctx)[:4]
    # The backward operator returns an empty tensor for what nobody asked: its cotangent says nothing.
    shapes = (tensor.shape for tensor in ctx.saved_tensors[1:])
    tangents = [None if t is None or t.shape != shape else t for t, shape in zip(tangents, shapes, strict=True)]
    grads = _ops.radial_gate_double_backward(*tangents, *ctx.saved_tensors, *wanted[2:])
    return *(grad if yes else None for grad, yes in zip(grads, wanted, strict=True)), None, None


_derivative("radial_gate", _radial_gate_backward, _save_inputs(3))
_derivative("radial_gate_backward", _radial_gate_double_backward, _save_inputs(4))


# ---- third derivatives -----------------------------------------------------------------------------------------------


def _no_third_derivative(ctx, *grads):
    raise RuntimeError("spherenet_fast: third derivatives do not exist")


for _name in ("radial_basis", "gated_sum", "smooth_torsion", "radial_gate", "silu"):
    _derivative(f"{_name}_double_backward", _no_third_derivative, lambda ctx, inputs, output: None)


# ---- autocast: lower precision has no kernels, the operators run in float32 ------------------------------------------

_FULL_PRECISION = "radial_basis gated_sum smooth_torsion segment_sum gather radial_gate product outer_sum silu"
for _name in _FULL_PRECISION.split():
    for _device in ("cpu", "cuda"):
        torch.library.register_autocast(f"spherenet_fast::{_name}", _device, torch.float32)
