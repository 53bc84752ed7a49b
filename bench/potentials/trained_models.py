"""What the scripts that measure trained models share: how a row names its model, units, and geometries."""

import datetime
import json
from pathlib import Path

import torch

from bench import machine
from bench.tables import Row
from bench.training.run_rows import model_name
from spherenet_fast.calculators.ase import energy_factor
from spherenet_fast.data import Molecules, read_molecules
from spherenet_fast.training import Potential
from spherenet_fast.training.potential import read_checkpoint

MODEL = "checkpoint model torsion seed steps dtype".split()
MEASURED = "hardware threads torch commit date".split()
RESULTS = Path(__file__).parents[1] / "results" / "potentials"


def load(checkpoint, dtype: str, device: str = "cpu") -> tuple[Potential, float]:
    """The potential with its model in `dtype` ("float32", "float64"), and eV per unit of its energy.

    Raises FileNotFoundError or ValueError as `Potential.load` does, and ValueError if it predicts no energy.
    """
    potential = Potential.load(checkpoint, device)
    factor = energy_factor(potential)
    potential.model.to(getattr(torch, dtype))  # the atomic energies stay in float64
    return potential, factor


def describe(checkpoint, potential: Potential) -> Row:
    """The columns MODEL and MEASURED; of the path the folder and the file, steps "" where they are not to be found."""
    path, config = Path(checkpoint), potential.config
    environment = machine.environment(str(next(potential.parameters()).device))
    return {
        "checkpoint": f"{path.resolve().parent.name}/{path.name}",
        "model": model_name(dict(potential.model.hparams, name=type(potential.model).__name__)),
        "torsion": getattr(potential.model, "torsion", None) or "none",
        "seed": "" if config is None else str(config["training"]["seed"]),
        "steps": str(_steps(path)),
        "dtype": str(next(potential.model.parameters()).dtype).removeprefix("torch."),
        "hardware": environment.pop("device"),
        "date": datetime.date.today().isoformat(),
    } | environment


def _steps(checkpoint: Path) -> int | str:
    results, last = checkpoint.with_name("results.json"), checkpoint.with_name("last.ckpt")
    if results.exists():
        return json.loads(results.read_text())["step"]
    return read_checkpoint(last)["global_step"] if last.exists() else ""


def geometries(source, potential: Potential) -> Molecules:
    """The structures of a source of `read_molecules` whose elements the potential has learned, in float64.

    Raises FileNotFoundError or ValueError as `read_molecules` does, and ValueError if there is no such structure.
    """
    molecules = read_molecules(source, dtype=torch.float64)
    if potential.elements is None:
        return molecules
    unknown = ~torch.isin(molecules.z, torch.tensor(potential.elements))
    number = torch.repeat_interleave(torch.arange(len(molecules)), molecules.n_atoms)
    known = torch.ones(len(molecules), dtype=torch.bool).index_fill_(0, number[unknown], False)
    if not known.any():
        raise ValueError(f"{source}: expected structures of the elements of the training set, got none")
    if known.all():
        return molecules
    atoms, _ = molecules.atoms_of(known.nonzero()[:, 0])
    return Molecules(molecules.n_atoms[known], molecules.z[atoms], molecules.pos[atoms], molecules.y[known],
                     molecules.names, molecules.units)  # fmt: skip


def lowest(molecules: Molecules) -> int:
    """The frame nearest to a minimum: the one with the lowest label "energy", the first where there is none."""
    if "energy" not in molecules.names:
        return 0
    return int(molecules.y[:, molecules.names.index("energy")].argmin())


def title(source) -> str:
    """What a table calls a source of structures."""
    return Path(str(source)).stem.replace("_", " ")
