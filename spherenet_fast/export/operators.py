"""Energies, and their slopes along the vectors between neighbors, as operators on tensors for systems of any size."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, fx

from ..graph import Graph
from ..graph.graph import first_atoms, opposite, ranks
from ..nn.ranges import MAX_ATOMIC_NUMBER
from ..nn.recording import written_down
from ..training.potential import Potential
from ..training.results import energy_factor

_IMAGES = 2**21  # numbers of images of one direction, from -2^20 on, of which three fit into an int64
PAIRS = ("z", "vec", "edge_index", "shift", "weight")  # what `Energies` is called with
SIZES = {"z": 0, "pos": 0, "batch": 0, "cell": 0, "weight": 0, "vec": 0, "edge_index": 1, "shift": 0}  # of any size


class Energies:
    """Energies of atoms, and the slopes of their sum, for any list of neighbors; traced by `written_down`.

    Args:
        potential: left as it is.
        unit: of the energy where the potential does not know its own.

    Attributes:
        model: a copy that wants no gradients.
        cutoff: Å.
        shift: eV, what a structure's energy is more than the sum over its atoms.
        known: atomic numbers that it was trained on, ascending.

    Raises:
        ValueError: it predicts something else than one energy, its unit is unknown, or its model has not all operators
            that are needed.
    """

    def __init__(self, potential: Potential, unit: str | None = None):
        factor = energy_factor(potential, unit)
        if not potential.model.is_sum_over_atoms:
            name = type(potential.model).__name__
            raise ValueError(f"model: expected a sum over atoms, to be exported, got a {name}, which is another one")
        for name, expected in (("kernels", True), ("max_num_neighbors", None)):
            found = potential.model.hparams.get(name, expected)
            if found != expected:
                raise ValueError(f"model: expected {name}={expected}, to be exported, got {found}")
        self.model = copy.deepcopy(potential.model).eval().requires_grad_(False)
        self.cutoff, self.shift = self.model.cutoff, factor * potential.shift.item()
        self.known = list(range(1, MAX_ATOMIC_NUMBER + 1) if potential.elements is None else sorted(potential.elements))
        self.atomic = factor * potential.atomic_energies[0]  # [95] eV
        self.scale = torch.full_like(self.atomic, torch.nan)  # [95] eV; none for elements that it never saw
        self.scale[self.known] = factor * potential.scale.item()

    def __call__(
        self, z: Tensor, vec: Tensor, edge_index: Tensor, shift: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Energies in eV without `self.shift`, and the slopes by vec of their sum with weights, in eV/Å.

        Args:
            z: [N] int64. An element that was not in the training set makes the numbers around it NaN.
            vec: [E, 3] float64, Å, from sender to receiver. Pairs that are not closer than the cutoff do not count.
            edge_index: [2, E] int64, senders and receivers, in any order; both directions of each pair.
            shift: [E, 3] int64, the periodic image of each pair, below 2^20.
            weight: [N] float64.

        Returns:
            [N] float64 and [E, 3] float64.
        """
        num_atoms = z.shape[0]
        near = vec.square().sum(-1).sqrt() < self.cutoff
        order, graph = graph_of_pairs(edge_index, shift, near, num_atoms)
        vec = torch.where(graph.present[:, None], vec[order], 1.0).detach().requires_grad_()
        dtype = self.model.parameter_like().dtype
        system, v, _, _ = self.model._of_edges(z, torch.zeros_like(z), 1, graph, vec, dtype)  # batches are all the same
        scaled = self.scale[z] * self.model.atom_readout(v, system)[:, 0].double()
        (slopes,) = torch.autograd.grad((scaled * weight).sum(), vec)
        return self.atomic[z] + scaled.detach(), torch.empty_like(slopes).index_copy(0, order, slopes)


def graph_of_pairs(edge_index: Tensor, shift: Tensor, near: Tensor, num_atoms: int) -> tuple[Tensor, Graph]:
    """The graph of pairs in any order, and the order [E] in which it has them; those that are not near are padding.

    edge_index [2, E]; shift [E, 3]; near [E] bool. Stable sorts alone, so that it can be written down.
    """
    edge_index = torch.where(near, edge_index, num_atoms)  # behind all atoms
    image = (shift[:, 0] * _IMAGES + shift[:, 1]) * _IMAGES + shift[:, 2]
    rank, reversed_rank = ranks(edge_index, torch.where(near, image, 0)[:, None])
    order = torch.argsort(rank, stable=True)
    sender, receiver = edge_index[0][order], edge_index[1][order]
    out_edge = torch.argsort(sender, stable=True)
    in_ptr, out_ptr = first_atoms(receiver, num_atoms), first_atoms(sender[out_edge], num_atoms)
    pairs = in_ptr.diff() * out_ptr.diff()
    triplet_ptr = torch.cat([pairs.new_zeros(1), pairs.cumsum(0)])
    num_triplets = triplet_ptr[-1].item()
    torch._check(num_triplets >= 0)
    present = near[order]
    rev = torch.where(present, opposite(rank[order], reversed_rank[order]), -1)
    edge_index = torch.where(present, torch.stack([sender, receiver]), -1)
    return order, Graph(edge_index, None, in_ptr, out_ptr, out_edge, rev, triplet_ptr, num_triplets, present)


def example(energies: Energies, device: torch.device) -> dict[str, Tensor]:
    """A system of two molecules, of whose sizes no two are equal: what operators are written down with."""
    sizes = torch.tensor([5, 4])
    batch = torch.repeat_interleave(torch.arange(2), sizes)
    turn = torch.arange(9) + 3.0 * batch
    pos = torch.stack([turn.mul(2).cos(), turn.mul(2).sin(), (turn % 5) / 2], 1).double() * energies.cutoff / 3
    receiver, sender = torch.where((batch[:, None] == batch) & ~torch.eye(9, dtype=torch.bool))
    system = {
        "z": torch.tensor(energies.known)[torch.arange(9) % len(energies.known)],
        "pos": pos,
        "batch": batch,
        "cell": torch.zeros(2, 3, 3, dtype=torch.float64),
        "edge_index": torch.stack([sender, receiver]),
        "shift": torch.zeros(len(sender), 3, dtype=torch.int64),
        "vec": pos[receiver] - pos[sender],
        "weight": torch.ones(9, dtype=torch.float64),
    }
    return {name: tensor.to(device) for name, tensor in system.items()}


def operators(energies: Energies, function: Callable, inputs: tuple[str, ...], device: torch.device) -> fx.GraphModule:
    """`function` of some entries of `example` as operators on tensors, for systems of any size.

    Raises ValueError for a model that has no such operators.
    """
    system = example(energies, device)
    try:
        arguments = {name: system[name] for name in inputs}
        traced, fakes, _ = written_down(function, arguments, energies.model, SIZES, keep_layers=False)
        if not all(fakes[name].shape[SIZES[name]].node.expr.is_Symbol for name in inputs):
            raise ValueError("it takes the number of atoms, pairs or molecules as a constant, as by len()")
    except Exception as error:  # whatever a model does that cannot be written down
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"model: expected operators on tensors alone, to be exported: {reason}") from error
    traced.recompile()
    return traced
