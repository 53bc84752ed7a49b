"""PyTorch 2: one file of compiled code and weights that C++ and Python load without the model's classes."""

import json
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from ase import Atoms
from torch import Tensor

from .._files import write_file
from ..data.formats.ase_files import from_atoms
from ..graph import radius_graph
from ..training.potential import Potential
from .operators import SIZES, Energies, example, operators

FORMAT = "spherenet_fast pt2 1"
INPUTS = ("z", "pos", "batch", "cell", "edge_index", "shift")


def export_pt2(potential: Potential, path, unit: str | None = None) -> None:
    """Write energies, forces and virials of a potential as a package of AOTInductor, all or nothing.

    It has the inputs and results of `Pt2Model.__call__`, and runs where the potential is (a CPU with the same
    instruction sets, or a GPU), once the operators' library is loaded. Takes a minute or two, and a C++ compiler.

    Args:
        potential: predicts one energy; its network computes in its own dtype and on its device.
        path: file to write, best ending in .pt2.
        unit: of the energy where the potential does not know its own.

    Raises:
        ValueError: it predicts something else than one energy, its model cannot be written down, or there is no C++
            compiler.
        OSError: the file cannot be written.
    """
    _check_compiler()
    energies, device = Energies(potential, unit), potential.scale.device

    def function(z, pos, batch, cell, edge_index, shift):
        return _energy_forces_virial(energies, z, pos, batch, cell, edge_index, shift)

    traced = operators(energies, function, INPUTS, device)
    system = example(energies, device)
    shapes = tuple({SIZES[name]: torch.export.Dim.DYNAMIC} for name in INPUTS)
    metadata = {
        "format": FORMAT,
        "cutoff": str(energies.cutoff),
        "elements": json.dumps(energies.known),
        "device": str(device),
    }
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # of torch to torch
        given = tuple(system[name] for name in INPUTS)
        program = torch.export.export(traced, given, dynamic_shapes=shapes, strict=False)
        package = torch._inductor.aoti_compile_and_package(
            program,
            package_path=str(Path(folder) / "model.pt2"),
            inductor_configs={"aot_inductor.metadata": metadata},
        )
        write_file(path, Path(package).read_bytes())


class Pt2Model:
    """A package of `export_pt2`, as Python calls it. `cutoff`: Å; `elements`: atomic numbers that it knows."""

    def __init__(self, path):
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file")
        try:
            with zipfile.ZipFile(path) as archive:  # a library with wrong bytes would end the process
                if (damaged := archive.testzip()) is not None:
                    raise RuntimeError(f"it is damaged (in {damaged})")
            self._run = torch._inductor.aoti_load_package(str(path))
            metadata = self._run.get_metadata()
            self.cutoff, self.elements = float(metadata["cutoff"]), tuple(json.loads(metadata["elements"]))
            self.device = torch.device(metadata["device"])
        except (RuntimeError, KeyError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(f"{path}: expected what `spherenet-fast export --to pt2` wrote: {reason}") from error

    def evaluate(
        self,
        z: Tensor | Atoms | Sequence[Atoms],
        pos: Tensor | None = None,
        batch: Tensor | None = None,
        cell: Tensor | None = None,
        pbc: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What `__call__` returns, of neighbors that are found here.

        Args:
            z: one or several structures of ASE, then alone; or atomic numbers [N] int64.
            pos: [N, 3] float64, Å.
            batch: [N] int64, the molecule of each atom, ascending; None: one molecule.
            cell: [B, 3, 3] float64, Å; None: molecules.
            pbc: [B, 3] or [3] bool, the directions that repeat; None: all, if there is a cell.

        Raises:
            TypeError, ValueError: as `__call__`; or two atoms are at the same place.
        """
        if not isinstance(z, Tensor):
            structures = from_atoms([z] if isinstance(z, Atoms) else list(z), torch.float64, labels=False)
            data = structures[:].to(self.device)
            return self.evaluate(data.z, data.pos, data.batch, data.cell, data.pbc)
        graph = radius_graph(pos, batch, self.cutoff, cell, pbc)
        batch = torch.zeros_like(z) if batch is None else batch
        cell = pos.new_zeros(int(batch[-1]) + 1, 3, 3) if cell is None else cell
        shift = graph.edge_index.new_zeros(graph.edge_index.shape[1], 3) if graph.shift is None else graph.shift
        return self(z, pos, batch, cell, graph.edge_index, shift)

    def __call__(
        self, z: Tensor, pos: Tensor, batch: Tensor, cell: Tensor, edge_index: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Energies, forces and virials of a batch of molecules or cells.

        Args:
            z: [N] int64, atomic numbers.
            pos: [N, 3] float64, Å.
            batch: [N] int64, the molecule of each atom, ascending.
            cell: [B, 3, 3] float64, Å, a vector in each row; zeros for molecules.
            edge_index: [2, E] int64, sender and receiver of every pair that is closer than the cutoff, both directions,
                in any order. Pairs farther apart change nothing.
            shift: [E, 3] int64: the vector of a pair is pos[receiver] - pos[sender] + shift @ cell.

        Returns:
            energy [B] in eV, forces [N, 3] in eV/Å, and virial [B, 3, 3] in eV, the derivative of the energy by strain:
            the stress is virial / volume. All float64.

        Raises:
            TypeError, ValueError: an input has another dtype, shape or device, or numbers out of range.
        """
        given = dict(zip(INPUTS, (z, pos, batch, cell, edge_index, shift), strict=True))
        shapes = ([len(z)], [len(z), 3], [len(z)], [len(cell), 3, 3], [2, len(shift)], [len(shift), 3])
        for (name, value), shape in zip(given.items(), shapes, strict=True):
            dtype = torch.float64 if name in ("pos", "cell") else torch.int64
            if value.dtype != dtype:
                raise TypeError(f"{name}: expected {dtype}, got {value.dtype}")
            if list(value.shape) != shape:
                raise ValueError(f"{name}: expected shape {shape}, got {list(value.shape)}")
            if value.device.type != self.device.type:
                raise ValueError(f"{name}: expected device {self.device}, of the package, got {value.device}")
        for name, values, count in (("batch", batch, len(cell)), ("edge_index", edge_index, len(z))):
            if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < count:
                found = f"{int(values.min())} to {int(values.max())}"
                raise ValueError(f"{name}: expected numbers from 0 to {count - 1}, got {found}")
        if unknown := sorted({*z.tolist()} - {*self.elements}):
            raise ValueError(f"z: expected atomic numbers {list(self.elements)}, of the training set, got {unknown}")
        return tuple(self._run(*(value.contiguous() for value in given.values())))


def load_pt2(path) -> Pt2Model:
    """Load what `export_pt2` wrote, after the operators that it needs.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is another file, or its code does not run here.
    """
    return Pt2Model(path)


def _check_compiler() -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except RuntimeError as error:
        raise ValueError("pt2: expected a C++ compiler, g++ or the one that CXX names, got none that runs") from error


def _energy_forces_virial(energies: Energies, z, pos, batch, cell, edge_index, shift) -> tuple[Tensor, Tensor, Tensor]:
    """As `Pt2Model.__call__`."""
    sender, receiver = edge_index[0], edge_index[1]
    of_pair = batch[receiver]
    vec = pos[receiver] - pos[sender] + (shift.to(pos.dtype)[:, :, None] * cell[of_pair]).sum(1)
    of_atoms, slopes = energies(z, vec, edge_index, shift, torch.ones_like(pos[:, 0]))
    energy = torch.full_like(cell[:, 0, 0], energies.shift).index_add(0, batch, of_atoms)
    forces = torch.zeros_like(pos).index_add(0, sender, slopes).index_add(0, receiver, -slopes)
    virial = torch.zeros_like(cell).index_add(0, of_pair, vec[:, :, None] * slopes[:, None])
    return energy, forces, (virial + virial.mT) / 2
