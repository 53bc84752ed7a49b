"""What is measured: procedures, and the workloads made of them and the systems."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import nn

from bench.providers import dig_models, models, pyg_models
from bench.providers.floor import Floor
from bench.providers.models import SPHERENETS
from bench.speed.operators import OPERATORS, OperatorUse
from bench.speed.recording import captured, recorded
from bench.speed.result_files import CAPTURED, REPLAY
from bench.systems import CUTOFF, aspirin, droplet, ethanol, graph_by_images, liquid, qm9, slab
from spherenet_fast.data import Batch
from spherenet_fast.graph import Graph, radius_graph
from spherenet_fast.nn.framework import GraphNetwork3D
from spherenet_fast.nn.replay import Replay

LIQUID_ATOMS = (400, 800, 1600, 3200, 6400)
LIQUID_ATOMS_ON_GPU = (400, 1600, 6400, 25600)
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
    memory: tuple[str, ...] = ()  # providers whose memory is measured as well, on the CPU in fresh processes
    size: int = 0  # the system's, as in MODEL_CASES
    parameters: tuple[str, ...] = ()  # providers whose parameters are counted


_last_periodic: dict[str, object] = {}  # the graph of the structure that all providers are measured on


def graph_of(data: Batch, cutoff: float = CUTOFF) -> Graph:
    """The neighbors as the model finds them; those of a periodic structure on a GPU without any other package."""
    if data.cell is not None and data.pos.is_cuda:
        if _last_periodic.get("pos") is not data.pos:
            _last_periodic.update(pos=data.pos, graph=graph_by_images(data, CUTOFF))
        return _last_periodic["graph"]
    return radius_graph(data.pos, data.batch, cutoff, data.cell, data.pbc)


# ---- procedures ------------------------------------------------------------------------------------------------------
# A step is the loss and its gradients, without the optimizer. Each call finds the neighbors, too, unless it has them.
# Whether the model is training has been set before: that goes through all of its modules.


def inference(model: nn.Module, data: Batch, *graph: Graph) -> None:
    with torch.no_grad():
        model(data, *graph)


def energy_step(model: nn.Module, data: Batch, *graph: Graph) -> None:
    model(data, *graph).square().mean().backward()
    model.zero_grad(set_to_none=True)


def energy_and_forces(model: nn.Module, data: Batch, *graph: Graph) -> None:
    model.energy_and_forces(data, *graph)


def energy_and_forces_step(model: nn.Module, data: Batch, *graph: Graph) -> None:
    energy, forces = model.energy_and_forces(data, *graph)
    (energy.square().mean() + forces.square().mean()).backward(inputs=list(model.parameters()))
    model.zero_grad(set_to_none=True)


def dynamics(model: nn.Module, data: Batch, *graph: Graph) -> None:
    """Energies and forces of one arrangement of atoms after another: ours by recorded operators, as the calculator."""
    (_replay(model) if isinstance(model, GraphNetwork3D) else model).energy_and_forces(data, *graph)


@cache
def _replay(model: GraphNetwork3D) -> Replay:
    return Replay(model, after=1)


PROCEDURES = {
    procedure.__name__: procedure
    for procedure in (inference, energy_step, energy_and_forces, energy_and_forces_step, dynamics)
}
PRODUCTS = {"dynamics": "energy_and_forces"}  # the floor's procedure where it is another one


@cache
def make_model(provider: str, num_spherical: int, device: str) -> nn.Module:
    torch.manual_seed(0)
    model = models.build(provider, num_spherical)
    for module in model.modules():
        if isinstance(module, nn.Linear) and not module.weight.any():
            module.reset_parameters()  # a prediction of 0 has gradients of 0, of which nothing can be compared
    return model.to(device)


def model_call(provider: str, mode: str, data: Batch, num_spherical: int, device: str) -> Call:
    """The procedure `mode` over `data` for one provider, ready to be timed."""
    model, data = make_model(provider, num_spherical, device), data.to(device)
    procedure = mode.removesuffix(REPLAY).removesuffix(CAPTURED)
    model.train(procedure.endswith("step"))
    if mode.endswith(CAPTURED):
        return captured(model, procedure, data, CUTOFF)

    def make() -> Call:
        if provider == "floor":
            floor = Floor(model, graph_of(data).edge_index.shape[1], len(data.z))
            return getattr(floor, PRODUCTS.get(procedure, procedure))
        if mode.endswith(REPLAY) or (data.cell is not None and data.pos.is_cuda):
            neighbors = model.neighbors(data) if provider in pyg_models.NEEDS else graph_of(data, model.cutoff)
            return partial(PROCEDURES[procedure], model, data, neighbors)
        return partial(PROCEDURES[procedure], model, data)

    return recorded(make, data.pos.device) if mode.endswith(REPLAY) else make()


# ---- workloads -------------------------------------------------------------------------------------------------------

# case: system, procedures, num_spherical, sizes (molecules, frames or atoms)
MODEL_CASES = {
    "qm9": (qm9, ("inference", "energy_step"), 7, (32,)),
    "qm9-128": (qm9, ("inference", "energy_step"), 7, (128,)),
    "qm9-512": (qm9, ("inference", "energy_step"), 7, (512,)),
    "ethanol": (ethanol, ("energy_and_forces", "energy_and_forces_step"), 7, (16,)),
    "ethanol-1": (ethanol, ("energy_and_forces", "dynamics"), 7, (1,)),
    "aspirin-1": (aspirin, ("energy_and_forces", "dynamics"), 7, (1,)),
    "aspirin": (aspirin, ("energy_and_forces", "energy_and_forces_step"), 7, (8,)),
    "slab": (slab, ("energy_and_forces",), 3, (185,)),
    "droplet": (droplet, ("inference",), 3, LIQUID_ATOMS[:1]),
    "liquid": (liquid, ("inference",), 3, LIQUID_ATOMS),
    "models": (qm9, ("energy_step",), 7, (32,)),
}
ON_GPU = ("qm9-128", "qm9-512", "slab")  # cases that are measured there alone by default
CASES = ("build", *MODEL_CASES, "graph", *OPERATORS)
PROVIDERS = ("ours", "floor", "reference", *dig_models.NEEDS, *models.OWN, *pyg_models.NEEDS)
WEIGHED = (*SPHERENETS, *dig_models.NEEDS, "pyg_dimenet++")  # whose memory is measured; in "models", that of all


def workloads(case: str, providers: list[str], device: str, quick: bool, dry_run: bool = False) -> Iterator[Workload]:
    """The workloads of a case. Those without a provider are left out.

    dry_run: on any device those of a GPU, in the least size, recorded ones where that is possible.
    """
    on_gpu = dry_run or torch.device(device).type == "cuda"
    if case == "build":
        found = _build(providers, device)
    elif case in MODEL_CASES:
        found = _model_workloads(case, providers, device, quick, on_gpu, dry_run)
    elif case == "graph":
        found = _graph_workloads(providers, device)
    else:
        found = _operator_workloads(case, providers, device, 1 if dry_run else 8 if quick else 32, on_gpu)
    return (workload for workload in found if workload.prepare)


def _build(providers: list[str], device: str) -> Iterator[Workload]:
    build = make_model.__wrapped__  # without its cache
    chosen = [name for name in providers if name != "floor" and name not in models.OWN]
    yield Workload("build", "build", 0, {name: lambda name=name: partial(build, name, 7, device) for name in chosen})


def _model_workloads(
    case: str, providers: list[str], device: str, quick: bool, on_gpu: bool, dry_run: bool
) -> Iterator[Workload]:
    system, modes, num_spherical, sizes = MODEL_CASES[case]
    if on_gpu:
        modes = [mode + way for mode in modes if mode != "dynamics" for way in ("", REPLAY, CAPTURED)]
        sizes = LIQUID_ATOMS_ON_GPU if case == "liquid" else sizes
    if dry_run:
        sizes = sizes[:1] if case in ("droplet", "liquid", "slab") else (1,)
    for size in sizes[:2] if quick else sizes:
        data = system(size).to(device)
        for mode in modes:
            chosen = [name for name in providers if _takes_part(name, case, size, mode)]
            prepare = {name: partial(model_call, name, mode, data, num_spherical, device) for name in chosen}
            plain = not mode.endswith((REPLAY, CAPTURED))
            weighed = mode.endswith("step") or case in ("droplet", "liquid") and plain
            weighed = weighed and (not quick or size == LIQUID_ATOMS[0]) and not dry_run
            memory = tuple(name for name in chosen if (name in WEIGHED or case == "models") and weighed)
            parameters = tuple(chosen) if case == "models" else ()
            yield Workload(case, mode, len(data.z), prepare, memory=memory, size=size, parameters=parameters)


def _takes_part(provider: str, case: str, size: int, mode: str) -> bool:
    """Whether a provider is measured on a system.

    PyTorch Geometric's models stop at 32 neighbors, which is no comparison in a liquid or a metal. The reference and
    DIG's SphereNet keep hundreds of floats for each triplet, so they see only the smallest systems; and they ask the
    GPU for sizes on their way, so they cannot be recorded. DIG's knows no periodic systems. Only this package has steps
    of fixed size.
    """
    if case == "models":
        return models.takes_part(provider) and not mode.endswith(CAPTURED)
    if provider in models.OWN or provider == "pyg_dimenet":
        return False
    periodic = case in ("liquid", "slab")
    if provider in dig_models.NEEDS and periodic:
        return False
    if mode.endswith(CAPTURED):
        return provider == "ours" and not periodic
    if provider == "reference" or provider in dig_models.NEEDS:
        return not mode.endswith(REPLAY) and case != "qm9-512" and (not periodic or size == LIQUID_ATOMS[0])
    return not (periodic or case == "droplet") or provider not in pyg_models.NEEDS


def _graph_workloads(providers: list[str], device: str) -> Iterator[Workload]:
    """The neighbor search alone; that of a periodic structure on the CPU."""
    systems = [("qm9", qm9(32))]
    if torch.device(device).type != "cuda":
        systems += [("liquid", liquid(size)) for size in (LIQUID_ATOMS[0], LIQUID_ATOMS[-1])]
    for name, data in systems:
        call = partial(graph_of, data.to(device))
        yield Workload("graph", name, len(data.z), {"ours": lambda call=call: call} if "ours" in providers else {})


def _operator_workloads(
    operator: str, providers: list[str], device: str, num_molecules: int, on_gpu: bool
) -> Iterator[Workload]:
    data = qm9(num_molecules).to(device)
    use = OperatorUse(operator, make_model("ours", 7, device), data.pos, graph_of(data))
    for mode in use.modes:
        prepare = {name: partial(use.call, name, mode) for name in providers if name in SPHERENETS}
        yield Workload(operator, mode, len(data.z), prepare, use.unit, use.per)
        if on_gpu and "ours" in providers:
            replay = {"ours": lambda mode=mode: recorded(partial(use.call, "ours", mode), data.pos.device)}
            yield Workload(operator, mode + REPLAY, len(data.z), replay, use.unit, use.per)
