"""How many kernels a pass launches on a GPU, counted without one: `python -m bench.speed.launches [PROCEDURE ...]`.

A pass runs on tensors of the device "meta", which have shapes and no values, so that the code takes the ways that it
takes on a GPU, and what reaches torch's dispatcher below autograd is counted: an operator of this package with the
kernels that its launcher starts, in csrc/cuda or ops/triton_kernels, one of torch's as one kernel, but for views and
allocations, which launch none, and for SEVERAL. cuBLAS may make two kernels of a product; that is not foreseen. The
number does not depend on the number of atoms.
"""

import argparse
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from importlib import import_module
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from bench.speed.cases import graph_of, make_model
from bench.systems import ethanol
from spherenet_fast.nn.derivatives import with_forces
from spherenet_fast.nn.framework import GraphNetwork3D
from spherenet_fast.nn.inputs import Inputs
from spherenet_fast.ops._register import layers_kept

NONE = {"empty", "new_empty", "empty_like", "new_empty_strided", "empty_strided", "_unsafe_view", "_reshape_alias"}
# what is written to after a fill, or after a copy of the bias
SEVERAL = {"embedding_dense_backward": 2, "select_backward": 2, "baddbmm": 2}

# Of this package's operators; sums over the blocks of a kernel are a second one.
_first = dict.fromkeys(
    "silu gather segment_sum radial_filter radial_basis smooth_torsion torsion_neighbor gated_sum".split(), 1
)
_both = {"silu": 1, "smooth_torsion": 2, "radial_basis": 3}
OWN: dict[str, Callable[[tuple], int]] = {
    **{name: lambda _, count=count: count for name, count in _first.items()},
    **{f"{name}_backward": lambda _, count=count: count for name, count in _both.items()},
    **{f"{name}_double_backward": lambda _, count=count: count for name, count in _both.items()},
    "neighbor_pointers": lambda _: 2,
    "neighbor_edges": lambda _: 2,
    # the last arguments are whether there are sums for the weights, and for the geometry
    "radial_filter_backward": lambda arguments: 1 + arguments[-1],
    "radial_filter_double_backward": lambda arguments: 1 + arguments[-1],
    "gated_sum_backward": lambda arguments: 1 + sum(arguments[-2:]),
    "gated_sum_double_backward": lambda arguments: 2 + sum(arguments[-2:]),
    # Triton's; an argument says whether there are gradients of weights, which are found in parts and summed
    "row_chain": lambda _: 1,
    "row_chain_backward": lambda arguments: 1 + 2 * arguments[-2],
    "row_chain_double_backward": lambda arguments: 1 + 2 * arguments[-1],
}


def launched(operator: torch._ops.OpOverload, arguments: tuple, results: object) -> int:
    """Kernels that one call launches on a GPU. Raises KeyError for an operator of this package that is not in OWN."""
    name = operator._schema.name.partition("::")[2]
    if operator.namespace == "spherenet_fast":
        copied = sum(isinstance(value, Tensor) and not value.is_contiguous() for value in tree_leaves(arguments))
        return OWN[name](arguments) + copied
    nothing = not any(isinstance(value, Tensor) and value.numel() for value in tree_leaves(results))
    return 0 if name in NONE or operator.is_view or nothing else SEVERAL.get(name, 1)


class Launches(TorchDispatchMode):
    """Kernels by operator, of what is called while it is on."""

    def __init__(self):
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        results = function(*arguments, **(keywords or {}))
        if count := launched(function, arguments, results):
            self.counts[function._schema.name] += count
        return results


def predict(model: GraphNetwork3D, *given) -> None:
    with torch.no_grad():
        model._predict(*given)


def energy_step(model: GraphNetwork3D, *given) -> None:
    model._predict(*given).square().mean().backward()


def energy_and_forces(model: GraphNetwork3D, *given) -> None:
    with_forces(model._predict, *given, False)


def energy_and_forces_step(model: GraphNetwork3D, *given) -> None:
    energy, forces = with_forces(model._predict, *given, True)
    (energy.square().mean() + forces.square().mean()).backward(inputs=list(model.parameters()))


# as in `bench.speed.cases`, the neighbors known
PASSES = {
    "inference": predict, "energy_step": energy_step, "energy_and_forces": energy_and_forces,
    "energy_and_forces_step": energy_and_forces_step,
}  # fmt: skip


@cache
def kernels(procedure: str, model: GraphNetwork3D | None = None, triton: bool = True) -> Counter[str]:
    """Kernels by operator of one pass of `model`, SphereNet() if not given, on any device, which is left alone.

    triton: whether it is installed.
    """
    model, data = model or make_model("ours", 7, "cpu"), ethanol(1)
    graph = graph_of(data, model.cutoff)
    inputs, graph = tree_map_only(
        Tensor, lambda tensor: tensor.to("meta"), (Inputs(data.z, data.pos, data.batch, 1, None, None), graph)
    )
    on_meta = type(model)(**model.hparams).to("meta").train(procedure.endswith("step"))
    # torch has no autocast for "meta", and nothing here is under it
    without = mock.patch.object(torch, "autocast", lambda *_, **__: nullcontext())
    chains = mock.patch.object(import_module("spherenet_fast.ops.row_chain"), "_has_kernels", lambda x: triton)
    with without, chains, layers_kept(), Launches() as found:
        PASSES[procedure](on_meta, inputs, graph)
    return found.counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("procedures", nargs="*", metavar="PROCEDURE", help=f"{', '.join(PASSES)}; all by default")
    chosen = parser.parse_args().procedures or list(PASSES)
    if unknown := [name for name in chosen if name not in PASSES]:
        parser.error(f"PROCEDURE: expected some of {', '.join(PASSES)}, got {', '.join(unknown)}")
    for procedure in chosen:
        counts = kernels(procedure)
        print(f"{procedure}: {counts.total()}, without Triton {kernels(procedure, triton=False).total()}")
        for name, number in counts.most_common():
            print(f"    {number:5d}  {name}")


if __name__ == "__main__":
    main()
