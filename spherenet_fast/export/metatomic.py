"""metatomic: a TorchScript model for the engines that speak it (ASE, LAMMPS, i-PI, TorchSim, ...)."""

import hashlib
import json
import platform
import tempfile
import warnings
from datetime import datetime, timezone
from pathlib import Path
from typing import Dict, List, Optional  # TorchScript reads these

import torch
from torch import fx

from .. import _library
from .._files import write_file
from ..training.potential import Potential
from .operators import PAIRS, Energies, operators

# PyTorch Geometric replaces these two by functions that TorchScript cannot read, which compiles metatomic on import.
for function in ("index_select", "select"):
    torch.jit._builtins._register_builtin(getattr(torch, function), f"aten::{function}")
try:
    from metatensor.torch import Labels, TensorBlock, TensorMap
    from metatomic import torch as metatomic
    from metatomic.torch import ModelOutput, NeighborListOptions, System
except ImportError as error:
    raise ImportError(
        "expected the package metatomic-torch (pip install 'spherenet_fast[engines]'), got none"
    ) from error


def export_metatomic(potential: Potential, path, extensions, unit: str | None = None, name: str = "SphereNet") -> None:
    """Write a potential as a metatomic model, and the library of its operators; each of both files all or nothing.

    The model asks for positions and neighbors in float64, whatever the network computes in, and gives the energy, of
    structures or of atoms, in eV. Its derivatives by positions and cells, which engines take, are exact for the energy
    of a structure, or of the selected atoms; of the energies of atoms those of their sum alone are. What an energy has
    besides a sum over atoms, as a potential with a mean for its reference, is shared among the atoms of a structure.

    Args:
        potential: predicts one energy; its network computes in its own dtype, on its kind of device.
        path: file to write, best ending in .pt.
        extensions: folder for the library, made if there is none; what engines call the extensions directory.
        unit: of the energy where the potential does not know its own.
        name: of the model, in its metadata.

    Raises:
        ValueError: it predicts something else than one energy, or its model cannot be written down.
        OSError: a file cannot be written.
    """
    energies = Energies(potential, unit)
    device = potential.scale.device
    traced = operators(energies, energies, PAIRS, device)
    capabilities = metatomic.ModelCapabilities(
        outputs={"energy": ModelOutput(unit="eV", sample_kind="atom", description="potential energy")},
        atomic_types=energies.known,
        interaction_range=(energies.model.num_layers + 1) * energies.cutoff,
        length_unit="angstrom",
        supported_devices=[device.type],
        dtype="float64",
    )
    metadata = metatomic.ModelMetadata(
        name=name,
        description=f"{type(energies.model).__name__}, trained and exported with spherenet_fast",
        references={"architecture": ["https://arxiv.org/abs/2102.05013"]},
    )
    model = metatomic.AtomisticModel(_Model(energies, _scriptable(traced)).eval(), metadata, capabilities)
    copy, library = library_copy(extensions), _library.loaded_path().read_bytes()
    extension = {
        "name": copy.stem,  # metatomic looks for it in the names of loaded files, among them that of this package
        "path": copy.relative_to(extensions).as_posix(),
        "sha256": hashlib.sha256(library).hexdigest(),
    }
    written = _serialized(model, extension)
    copy.parent.mkdir(parents=True, exist_ok=True)
    write_file(copy, library)
    write_file(path, written)


def library_copy(extensions) -> Path:
    """The operators' library in an extensions directory."""
    return Path(extensions) / _library.NAMESPACE / _library.loaded_path().name


def _serialized(model: torch.nn.Module, extension: dict[str, str]) -> bytes:
    """As `AtomisticModel.save`, which would also name all other libraries that this process has loaded."""
    exported = {"date": datetime.now(timezone.utc).isoformat(), "platform": f"{platform.machine()}-{platform.system()}"}
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # TorchScript, which metatomic builds on
        warnings.filterwarnings("ignore", message="The TorchScript type system doesn't support")
        scripted, path = torch.jit.script(model), Path(folder) / "model.pt"
        files = {
            "torch-version": torch.__version__,
            "metatomic-version": metatomic.__version__,
            "extensions": json.dumps([extension]),
            "extensions-deps": json.dumps([]),
            "export-metadata": json.dumps(exported),
            "model-metadata": scripted.metadata().__getstate__()[0],
        }
        torch.jit.save(scripted.to("cpu"), str(path), _extra_files=files)  # loaded without devices
        return path.read_bytes()


def _scriptable(traced: fx.GraphModule) -> fx.GraphModule:
    """The operators for TorchScript, which chooses overloads itself; on the device of the first argument."""
    graph = traced.graph
    first = next(node for node in graph.nodes if node.op == "placeholder")
    with graph.inserting_after(list(graph.find_nodes(op="placeholder"))[-1]):
        device = graph.call_function(getattr, (first, "device"))
    for node in graph.nodes:
        if node.op != "call_function" or node is device:
            continue
        if node.target is torch.ops.aten._local_scalar_dense.default:
            node.target = torch.ops.aten.Int
        elif isinstance(node.target, torch._ops.OpOverload):
            node.target = node.target.overloadpacket
        kwargs = {name: value for name, value in node.kwargs.items() if name not in ("pin_memory", "layout")}
        node.kwargs = kwargs | ({"device": device} if "device" in kwargs else {})
    traced.recompile()
    return traced


class _Model(torch.nn.Module):
    """What metatomic calls: its systems as one system, and the results as its tensors."""

    def __init__(self, energies: Energies, operators: fx.GraphModule):
        super().__init__()
        self.operators = operators
        self.shift = energies.shift
        self.neighbors = NeighborListOptions(cutoff=energies.cutoff, full_list=True, strict=True)

    def requested_neighbor_lists(self) -> List[NeighborListOptions]:
        return [self.neighbors]

    def forward(
        self, systems: List[System], outputs: Dict[str, ModelOutput], selected_atoms: Optional[Labels]
    ) -> Dict[str, TensorMap]:
        results: Dict[str, TensorMap] = {}
        if "energy" not in outputs or len(systems) == 0:
            return results
        device = systems[0].positions.device
        z: List[torch.Tensor] = []
        vec: List[torch.Tensor] = []
        pairs: List[torch.Tensor] = []
        atoms: List[torch.Tensor] = []  # system and atom of each
        shares: List[torch.Tensor] = []  # of what a structure's energy has besides those of its atoms
        first: List[int] = []
        of_pair: List[torch.Tensor] = []
        total = 0
        for number, system in enumerate(systems):
            neighbors = system.get_neighbor_list(self.neighbors)
            samples = neighbors.samples.values.to(torch.int64)
            size = len(system)
            pairs.append(torch.cat([samples[:, :2] + total, samples[:, 2:]], dim=1))
            vec.append(neighbors.values.reshape(-1, 3))
            of_pair.append(torch.full((samples.size(0),), number, dtype=torch.int64, device=device))
            z.append(system.types.to(torch.int64))
            index = torch.arange(size, device=device)
            atoms.append(torch.stack([torch.full_like(index, number), index], dim=1))
            shares.append(torch.full((size,), self.shift / max(size, 1), dtype=torch.float64, device=device))
            first.append(total)
            total += size
        vectors, edges, atom = torch.cat(vec), torch.cat(pairs), torch.cat(atoms)
        weight = torch.ones(total, dtype=torch.float64, device=device)
        chosen = torch.arange(total, device=device)
        if selected_atoms is not None:
            labels = selected_atoms.values.to(torch.int64)
            chosen = torch.tensor(first, dtype=torch.int64, device=device)[labels[:, 0]] + labels[:, 1]
            weight = torch.zeros_like(weight).index_fill(0, chosen, 1.0)
        energies, slopes = self.operators(
            torch.cat(z), vectors.detach(), edges[:, :2].t().contiguous(), edges[:, 2:].contiguous(), weight
        )
        energies, sample = (energies + torch.cat(shares))[chosen], atom[chosen]
        # 0, whose derivatives by the vectors are the slopes
        nothing = (slopes * (vectors - vectors.detach())).sum(1)
        of_system = torch.zeros(len(systems), dtype=torch.float64, device=device)
        of_system = of_system.index_add(0, torch.cat(of_pair), nothing)
        if outputs["energy"].sample_kind == "atom":
            counts = torch.zeros_like(of_system).index_add(0, sample[:, 0], torch.ones_like(energies))
            values = energies + (of_system / counts.clamp(min=1.0))[sample[:, 0]]
            names = ["system", "atom"]
        else:
            values = of_system.index_add(0, sample[:, 0], energies)
            sample, names = torch.arange(len(systems), device=device)[:, None], ["system"]
        block = TensorBlock(
            values=values[:, None],
            samples=Labels(names, sample.to(torch.int32)),
            components=torch.jit.annotate(List[Labels], []),
            properties=Labels(["energy"], torch.zeros(1, 1, dtype=torch.int32, device=device)),
        )
        key = Labels(["_"], torch.zeros(1, 1, dtype=torch.int32, device=device))
        results["energy"] = TensorMap(keys=key, blocks=[block])
        return results
