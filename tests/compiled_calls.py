"""The compiled operators, and argument lists for each, derived from the table in operator_cases.py."""

import pytest
import torch
from operator_cases import CASES, SMALL_SIZES, case, cast, derivatives, operator_of
from operator_graphs import small_graph

from spherenet_fast import ops

REGISTERED = frozenset(
    name.removeprefix("spherenet_fast::")
    for name in torch._C._dispatch_get_all_op_names()
    if name.startswith("spherenet_fast::")
)


def each_tensor(function, value):
    """value with function(tensor) for every tensor, also of those in lists."""
    if isinstance(value, list | tuple):
        return type(value)(each_tensor(function, item) for item in value)
    return function(value) if isinstance(value, torch.Tensor) else value


def calls(dtype, device="cpu"):
    """name -> argument lists of every compiled operator, as all cases and their derivatives call it.

    Each list differs from the others in what is absent or in a number. Derivatives are asked for all inputs of a case
    together, and of an operator's first case for each alone.
    """
    vec, graph = small_graph()
    found = {name: {} for name in sorted(REGISTERED)}

    def recorder(name, operator):
        def call(*arguments):
            copies = [each_tensor(lambda tensor: tensor.detach().clone(), a) for a in arguments]
            labels = [each_tensor(lambda tensor: "Tensor" if tensor.numel() else "nothing", a) for a in copies]
            found[name].setdefault(str(labels), copies)
            return operator(*arguments)

        return call

    with pytest.MonkeyPatch.context() as patch:
        compiled = torch.ops.spherenet_fast
        for name in REGISTERED:
            patch.setattr(compiled, name, recorder(name, getattr(compiled, name)))
        for name in CASES:
            chosen = case(name, vec, graph, SMALL_SIZES | {"channels": 5})
            given, run = cast(chosen.inputs, dtype, device), chosen.function(ops)
            if not chosen.derivatives:
                run(*given.values())
                continue
            present = [key for key, value in given.items() if value is not None]
            alone = [[key] for key in present] if name == operator_of(name) else []
            for some in (present, *alone):
                leaves = {key: given[key] for key in some}
                derivatives(lambda *values: run(*(given | dict(zip(leaves, values))).values()), leaves)
    return {name: list(lists.values()) for name, lists in found.items()}
