"""The operators of row chains on Triton's kernels, for float32: what lies where, and which kernels run.

The schemas are those of csrc/torch/row_chain.cpp. Weights may have a lower precision, that of their products, which are
summed in float32.
"""

from torch import Tensor

from . import passes
from .chain import MULTIPLY, Chain, Spare, Sums, or_empty, present
from .weight_gradients import parameter_gradients


def row_chain(rows, weights, biases, steps, save) -> list[Tensor]:
    """See csrc/torch/row_chain.cpp."""
    chain = Chain(rows, weights, biases, steps)
    last_use = {}
    for k, step in enumerate(chain.steps):
        last_use |= {step.source: k, step.other: k}
    values, spare = list(chain.rows), Spare(chain)
    for k, step in enumerate(chain.steps):
        value = chain.inputs + k
        values.append(chain.new(value) if step.is_result else spare.take(value))
        for other in range(chain.inputs, value):
            if last_use.get(other) == k and not chain.steps[other - chain.inputs].is_result:
                spare.give(values[other])
    of_steps = values[chain.inputs :]
    h = [chain.new(chain.inputs + k) if save else None for k in range(len(chain.steps))]
    arrays = dict(weight=chain.weights, bias=chain.biases, value=of_steps, h=h)
    arrays |= dict(source=chain.sources(values), other=chain.others(values))
    chain.launch(passes.forward, arrays, HAS_BIAS=present(chain.biases), SAVE=bool(save))
    results = [value for value, step in zip(of_steps, chain.steps) if step.is_result]
    return results + h if save else results


def row_chain_backward(
    grads, grads_h, rows, weights, biases, h, results, steps, wanted, of_weights, keep
) -> list[Tensor]:
    """See csrc/torch/row_chain.cpp. Where h is not stored, it is for all rows while this runs."""
    chain, first = Chain(rows, weights, biases, steps), len(rows)
    count = len(chain.steps)
    if not any(tensor.numel() for tensor in h):
        h = row_chain(rows, weights, biases, steps, True)[-count:]
    grads, grads_h, h, results = (
        chain.read(name, tensors, first)
        for name, tensors in (("grads", grads), ("grads_h", grads_h), ("h", h), ("results", results))
    )
    reached, active = set(), [0] * count
    for k in range(count - 1, -1, -1):
        active[k] = int(first + k in reached or grads[k] is not None or grads_h[k] is not None)
        reached |= {chain.steps[k].source, chain.steps[k].other} if active[k] else set()
    of_rows = [chain.new(v) if wanted[v] and v in reached else None for v in range(first)]
    kept = [chain.new(first + k) if keep and active[k] else None for k in range(count)]
    needed = {step.source for step, yes in zip(chain.steps, active) if yes and of_weights}
    needed |= {step.other for step, yes in zip(chain.steps, active) if yes and step.combine == MULTIPLY}
    values, find = chain.values_to_find(results, needed)

    sums = Sums(chain, [None] * first + grads, dict(enumerate(of_rows)))
    spare = Spare(chain)
    plans = []
    for k in range(count - 1, -1, -1):
        step, none = chain.steps[k], (None, None, 0)
        grad = sums.so_far[first + k]
        of_h = spare.take(first + k) if active[k] else None
        to_other, to_source = (sums.add(v) if active[k] else none for v in (step.other, step.source))
        plans.append((grad, of_h, *to_other, *to_source))
        if active[k] and not of_weights:
            spare.give(of_h)
    grads, of_h, of_other, other_so_far, to_other, of_source, source_so_far, to_source = zip(*reversed(plans))
    arrays = dict(weight=chain.weights, other=chain.others(values), value=values[first:], h=h, grad=grads, kept=kept)
    arrays |= dict(grad_h=grads_h, of_h=of_h, of_other=of_other, other_so_far=other_so_far)
    arrays |= dict(of_source=of_source, source_so_far=source_so_far)
    chain.launch(
        passes.backward, arrays,
        FIND=tuple(find), ACTIVE=tuple(active), HAS_GRAD=present(grads), HAS_GRAD_H=present(grads_h),
        TO_OTHER=to_other, TO_SOURCE=to_source, KEEP=bool(keep),
    )  # fmt: skip
    of_parameters = [None] * (2 * count)
    if of_weights:
        of_parameters = parameter_gradients(chain, of_h, chain.sources(values), biases)
    return or_empty([*of_rows, *of_parameters, *(kept if keep else [])], chain.rows[0])


def row_chain_double_backward(
    tangents, grad_values, rows, weights, biases, h, results, steps, of_weights
) -> list[Tensor]:
    """See csrc/torch/row_chain.cpp."""
    chain, first = Chain(rows, weights, biases, steps), len(rows)
    count = len(chain.steps)
    tangents = chain.read("tangents", tangents)
    grad_values, h, results = (
        chain.read(name, tensors, first)
        for name, tensors in (("grad_values", grad_values), ("h", h), ("results", results))
    )
    factors = {step.other for step in chain.steps if step.combine == MULTIPLY}
    values, find = chain.values_to_find(results, factors)

    moves = {number for number, tangent in enumerate(tangents) if tangent is not None}
    reached, of_sources, of_others, weighted = set(), [], [], []
    for k, step in enumerate(chain.steps):
        of_sources.append(int(step.source in moves))
        of_others.append(int(step.other in moves))
        weighted.append(int(bool(of_weights and of_sources[k] and grad_values[k] is not None)))
        if of_sources[k] or of_others[k]:
            moves.add(first + k)
        if of_sources[k] and step.combine == MULTIPLY:
            reached.add(step.other)
    for k in range(count - 1, -1, -1):
        reached |= {chain.steps[k].other} if first + k in reached else set()
    of_rows = [chain.new(v) if v in reached else None for v in range(first)]
    tangents += [chain.new(first + k) for k in range(count)]
    of_h = [chain.new(first + k) for k in range(count)]
    to_weight = [chain.new(first + k) if yes else None for k, yes in enumerate(weighted)]

    sums = Sums(chain, [None] * (first + count), dict(enumerate(of_rows)))
    to_factors, to_others, holds = [], [], []
    for k, step in enumerate(chain.steps):
        is_factor = step.combine == MULTIPLY and of_sources[k]
        to_factors.append(sums.add(step.other) if is_factor else (None, None, 0))
    for k in range(count - 1, -1, -1):
        grad = sums.so_far[first + k]
        holds.append(grad)
        to_others.append(sums.add(chain.steps[k].other) if grad is not None else (None, None, 0))
    factor, factor_so_far, to_factor = zip(*to_factors)
    of_other, other_so_far, to_other = zip(*reversed(to_others))
    holds = holds[::-1]
    arrays = dict(weight=chain.weights, other=chain.others(values), value=values[first:], h=h, grad=grad_values)
    arrays |= dict(tangent=tangents[first:], of_h=of_h, of_weight=to_weight, grad_h=holds)
    arrays |= dict(source_tangent=chain.sources(tangents), other_tangent=chain.others(tangents))
    arrays |= dict(factor=factor, factor_so_far=factor_so_far, of_other=of_other, other_so_far=other_so_far)
    chain.launch(
        passes.double_backward, arrays,
        FIND=tuple(find), MOVES=tuple(of_sources), OTHER_MOVES=tuple(of_others), HAS_GRAD=present(grad_values),
        WEIGHTED=tuple(weighted), TO_FACTOR=to_factor, HOLDS=present(holds), TO_OTHER=to_other,
        COLUMNS=chain.shape.second_columns,
    )  # fmt: skip
    of_weight = [None] * count
    if any(weighted):
        none = [chain.rows[0].new_empty(0)] * count
        of_weight = parameter_gradients(chain, to_weight, chain.sources(tangents), none)[:count]
    of_values = [tangents[first + k] if step.is_result else None for k, step in enumerate(chain.steps)]
    return or_empty([*of_values, *of_rows, *of_weight, *of_h], chain.rows[0])
