"""What is measured: systems, procedures, and the workloads made of them.

Everything is drawn with fixed seeds, from data in this repository or from nothing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

import pyg_models
from floor import Floor
from operators import OPERATORS, OperatorUse
from spherenet_fast.data import Batch, read_molecules
from spherenet_fast.graph import Graph, radius_graph
from spherenet_fast.models import SphereNet

CUTOFF = 5.0  # Å, SphereNet's default
LIQUID_DENSITY = 0.0925  # atoms/Å^3, liquid ethanol at room temperature
LIQUID_SPACING = 1.4  # Å, the least distance between two atoms of the liquid
LIQUID_ATOMS = (400, 800, 1600, 3200, 6400)
SPHERENETS = ("ours", "reference")
Call = Callable[[], object]


@dataclass(frozen=True)
class Workload:
    """The same work by different providers."""

    case: str
    mode: str
    x: int  # number of atoms
    prepare: dict[str, Callable[[], Call]]  # by provider: makes the call that is measured
    unit: str = "ms"
    per: int = 1  # a time is divided by this: the number of triplets or edges, where the unit says so
    memory: tuple[str, ...] = ()  # providers whose memory is measured as well
    size: int = 0  # the system's, as in MODEL_CASES


# ---- systems ---------------------------------------------------------------------------------------------------------


def qm9(num_molecules: int) -> Batch:
    """A draw of the shipped sample, which is spread evenly over QM9 and so has its distribution of sizes.

    With this seed, 32 molecules are as 32 molecules are on average: 583 atoms, 9,162 edges and 140,448 triplets, where
    the sample has 582, 9,193 and 141,843.
    """
    molecules = read_molecules("qm9")
    return molecules[torch.randperm(len(molecules), generator=torch.Generator().manual_seed(7))[:num_molecules]]


def ethanol(num_frames: int) -> Batch:
    return read_molecules("ethanol")[:num_frames]


def aspirin(num_frames: int) -> Batch:
    return read_molecules(Path(__file__).with_name("data") / "aspirin.npz")[:num_frames]


def liquid(num_atoms: int) -> Batch:
    """H, C, N and O at the density of a liquid: placed at random in a periodic cube, none closer than LIQUID_SPACING.

    Periodic, so that an atom has as many neighbours in a large cube as in a small one.
    """
    generator = np.random.default_rng(num_atoms)
    side = (num_atoms / LIQUID_DENSITY) ** (1 / 3)
    pos = np.empty((num_atoms, 3))
    placed = 0
    while placed < num_atoms:
        candidate = generator.random(3) * side
        offset = pos[:placed] - candidate
        offset -= side * np.round(offset / side)
        if (offset**2).sum(1).min(initial=np.inf) >= LIQUID_SPACING**2:
            pos[placed] = candidate
            placed += 1
    z = generator.choice([1, 6, 7, 8], size=num_atoms, p=[0.6, 0.2, 0.1, 0.1])
    return Batch(
        torch.from_numpy(z), torch.from_numpy(pos).float(), torch.zeros(num_atoms, dtype=torch.int64), 1,
        cell=side * torch.eye(3)[None], pbc=torch.ones(1, 3, dtype=torch.bool),
    )  # fmt: skip


def graph_of(data: Batch) -> Graph:
    return radius_graph(data.pos, data.batch, CUTOFF, data.cell, data.pbc)


# ---- procedures ------------------------------------------------------------------------------------------------------
# A step is the loss and its gradients, without the optimizer. Each call finds the neighbours too.


def inference(model: nn.Module, data: Batch) -> None:
    with torch.no_grad():
        model(data)


def energy_step(model: nn.Module, data: Batch) -> None:
    model(data).square().mean().backward()
    model.zero_grad(set_to_none=True)


def energy_and_forces(model: nn.Module, data: Batch) -> None:
    model.eval().energy_and_forces(data)


def energy_and_forces_step(model: nn.Module, data: Batch) -> None:
    energy, forces = model.train().energy_and_forces(data)
    (energy.square().mean() + forces.square().mean()).backward()
    model.zero_grad(set_to_none=True)


PROCEDURES = {
    procedure.__name__: procedure for procedure in (inference, energy_step, energy_and_forces, energy_and_forces_step)
}


@cache
def make_model(provider: str, num_spherical: int, device: str) -> nn.Module:
    torch.manual_seed(0)
    if provider in pyg_models.NEEDS:
        return pyg_models.build(provider).to(device)
    return SphereNet(num_spherical=num_spherical, kernels=provider != "reference").to(device)


def model_call(provider: str, mode: str, data: Batch, num_spherical: int, device: str) -> Call:
    """The procedure `mode` over `data` for one provider, ready to be timed."""
    model, data = make_model(provider, num_spherical, device), data.to(device)
    if provider == "floor":
        return getattr(Floor(model, graph_of(data).edge_index.shape[1], len(data.z)), mode)
    return partial(PROCEDURES[mode], model, data)


# ---- workloads -------------------------------------------------------------------------------------------------------

# case: system, procedures, num_spherical, sizes (molecules, frames or atoms)
MODEL_CASES = {
    "qm9": (qm9, ("inference", "energy_step"), 7, (32,)),
    "ethanol": (ethanol, ("energy_and_forces", "energy_and_forces_step"), 7, (16,)),
    "aspirin": (aspirin, ("energy_and_forces", "energy_and_forces_step"), 7, (8,)),
    "liquid": (liquid, ("inference",), 3, LIQUID_ATOMS),
}
CASES = ("build", *MODEL_CASES, "graph", *OPERATORS)
PROVIDERS = ("ours", "floor", "reference", *pyg_models.NEEDS)


def workloads(case: str, providers: list[str], device: str, quick: bool) -> Iterator[Workload]:
    """The workloads of a case. Those without a provider are left out."""
    if case == "build":
        found = _build(providers, device)
    elif case in MODEL_CASES:
        found = _model_workloads(case, providers, device, quick)
    elif case == "graph":
        found = _graph_workloads(providers, device)
    else:
        found = _operator_workloads(case, providers, device, quick)
    return (workload for workload in found if workload.prepare)


def _build(providers: list[str], device: str) -> Iterator[Workload]:
    build = make_model.__wrapped__  # without its cache
    chosen = [name for name in providers if name != "floor"]
    yield Workload("build", "build", 0, {name: lambda name=name: partial(build, name, 7, device) for name in chosen})


def _model_workloads(case: str, providers: list[str], device: str, quick: bool) -> Iterator[Workload]:
    system, modes, num_spherical, sizes = MODEL_CASES[case]
    for size in sizes[:2] if quick else sizes:
        chosen = [name for name in providers if _takes_part(name, case, size)]
        data = system(size)
        for mode in modes:
            prepare = {name: partial(model_call, name, mode, data, num_spherical, device) for name in chosen}
            weighed = (mode.endswith("step") or case == "liquid") and (not quick or size == LIQUID_ATOMS[0])
            memory = tuple(name for name in chosen if name in SPHERENETS and weighed)
            yield Workload(case, mode, len(data.z), prepare, memory=memory, size=size)


def _takes_part(provider: str, case: str, size: int) -> bool:
    """Whether a provider is measured on a system.

    PyTorch Geometric's models stop at 32 neighbours, which is no comparison in a liquid. The reference keeps hundreds
    of floats for each triplet, so it sees only the smallest liquid.
    """
    if case != "liquid":
        return True
    return provider not in pyg_models.NEEDS and (provider != "reference" or size == LIQUID_ATOMS[0])


def _graph_workloads(providers: list[str], device: str) -> Iterator[Workload]:
    """The neighbour search alone."""
    for name, data in (("qm9", qm9(32)), ("liquid", liquid(LIQUID_ATOMS[0])), ("liquid", liquid(LIQUID_ATOMS[-1]))):
        call = partial(graph_of, data.to(device))
        yield Workload("graph", name, len(data.z), {"ours": lambda call=call: call} if "ours" in providers else {})


def _operator_workloads(operator: str, providers: list[str], device: str, quick: bool) -> Iterator[Workload]:
    data = qm9(8 if quick else 32).to(device)
    use = OperatorUse(operator, make_model("ours", 7, device), data.pos, graph_of(data))
    for mode in use.modes:
        prepare = {name: partial(use.call, name, mode) for name in providers if name in SPHERENETS}
        yield Workload(operator, mode, len(data.z), prepare, use.unit, use.per)
