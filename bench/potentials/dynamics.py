"""What a trained model is worth in ASE: `python -m bench.potentials.dynamics CHECKPOINT STRUCTURE`.

Relaxes the structure by BFGS, takes its harmonic frequencies by finite differences, and moves it at constant energy
from velocities of a temperature, a row for each dtype: drift (a linear fit of the total energy), what the energy has
changed by from start to end, its largest change in a step, and its standard deviation about the fit. STRUCTURE is any
file that ASE reads (its first structure), or a source of `spherenet-fast train`, of whose frames the one of lowest
energy is taken; an .npz with `z [N]`, `minimum_pos [N, 3]` Å and perhaps `frequencies_cm1 [3N]` starts at that minimum
and compares the frequencies.
"""

import argparse
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.optimize import BFGS
from ase.vibrations import Vibrations

from bench.potentials import trained_models
from bench.tables import Row, append
from spherenet_fast import keep_freed_memory
from spherenet_fast.calculators.ase import SphereNetCalculator
from spherenet_fast.checks.energy import constant_energy, drift
from spherenet_fast.data import SAMPLES, read_molecules, read_structures

RELAXED = "structure atoms fmax relax_steps converged".split()
FREQUENCIES = "imaginary_modes imaginary_beyond_50 lowest_cm1 rigid_largest_cm1 reference_mae_cm1".split()
NVE = (
    "timestep_fs picoseconds temperature_K drift_meV_per_atom_ps start_to_end_meV largest_step_meV fluctuation_meV"
).split()
COLUMNS = [*trained_models.MODEL, *RELAXED, *FREQUENCIES, *NVE, *trained_models.MEASURED]
KEY = ("checkpoint", "dtype", "structure", "timestep_fs", "picoseconds", "temperature_K")
RIGID = 6  # motions of a molecule without frequency
BEYOND = 50.0  # cm^-1, of an imaginary mode that is no noise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("structure")
    parser.add_argument("--name", help="of the structure in the rows [the file's]")
    parser.add_argument("--dtype", nargs="+", choices=("float32", "float64"), default=["float32", "float64"])
    parser.add_argument("--fmax", type=float, default=0.01, help="largest force of a relaxed structure, eV/Å [0.01]")
    parser.add_argument("--relax-steps", type=int, default=300, help="at most [300]")
    parser.add_argument("--picoseconds", type=float, default=20.0, help="at constant energy; 0: none [20]")
    parser.add_argument("--timestep", type=float, default=0.5, help="fs [0.5]")
    parser.add_argument("--temperature", type=float, default=300.0, help="of the velocities at the start, K [300]")
    parser.add_argument("--seed", type=int, default=0, help="of the velocities [0]")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=trained_models.RESULTS / "dynamics.csv", help="rows to add to")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    try:
        for dtype in arguments.dtype:
            row = measure(dtype, arguments)
            print(", ".join(f"{name} {row[name]}" for name in (*trained_models.MODEL, *RELAXED, *FREQUENCIES, *NVE)))
            append(arguments.out, [row], COLUMNS, KEY)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))


def read_structure(source: str) -> tuple[Atoms, np.ndarray | None]:
    """The structure to start from, and its frequencies [3N] in 1/cm where the file has them.

    Raises FileNotFoundError or ValueError, naming the file or the array.
    """
    path = Path(source)
    if source in SAMPLES or source.startswith("pyg:") or path.suffix == ".npz":
        if zipfile.is_zipfile(path):  # else the reader of molecules says what is wrong
            with np.load(path) as archive:
                if "z" in archive and "minimum_pos" in archive:
                    return _minimum(path, archive)
        molecules = read_molecules(source, dtype=torch.float64)
        frame = molecules[trained_models.lowest(molecules)]
        if frame.cell is None:
            return Atoms(frame.z.numpy(), frame.pos.numpy()), None
    elif not (atoms := read_structures(path)[0]).pbc.any():
        return atoms, None
    raise ValueError(f"{source}: expected a molecule, got a periodic structure")


def _minimum(path: Path, archive) -> tuple[Atoms, np.ndarray | None]:
    z, pos = archive["z"], archive["minimum_pos"]
    if pos.shape != (len(z), 3):
        raise ValueError(f"{path}: minimum_pos: expected shape [{len(z)}, 3], got {list(pos.shape)}")
    frequencies = archive["frequencies_cm1"] if "frequencies_cm1" in archive else None
    if frequencies is not None and frequencies.shape != (3 * len(z),):
        raise ValueError(f"{path}: frequencies_cm1: expected shape [{3 * len(z)}], got {list(frequencies.shape)}")
    return Atoms(z, pos), frequencies


def measure(dtype: str, arguments: argparse.Namespace) -> Row:
    """One row of COLUMNS."""
    potential, _ = trained_models.load(arguments.checkpoint, dtype, arguments.device)
    atoms, reference = read_structure(arguments.structure)
    atoms.calc = SphereNetCalculator(potential)
    row = trained_models.describe(arguments.checkpoint, potential)
    optimizer = BFGS(atoms, logfile=None)
    converged = optimizer.run(fmax=arguments.fmax, steps=arguments.relax_steps)
    values = [arguments.name or trained_models.title(arguments.structure), len(atoms), arguments.fmax, optimizer.nsteps]
    row |= dict(zip(RELAXED, [*map(str, values), "yes" if converged else "no"]))
    row |= dict(zip(FREQUENCIES, frequencies_of(vibrations(atoms), reference)))
    spans = [arguments.timestep, arguments.picoseconds, arguments.temperature]
    energies, _ = constant_energy(atoms, *spans, arguments.seed)
    kept = drift(energies, arguments.timestep, len(atoms))
    return row | dict(zip(NVE, [*map(str, spans), *(f"{value:.4g}" for value in kept)]))


def vibrations(atoms: Atoms) -> np.ndarray:
    """Harmonic frequencies [3N] in 1/cm, ascending, imaginary ones negative."""
    with tempfile.TemporaryDirectory() as folder:
        found = Vibrations(atoms, name=str(Path(folder) / "vibrations"), delta=0.01)
        found.run()
        complex_ones = found.get_frequencies()
    return np.sort(np.real(complex_ones) - np.abs(np.imag(complex_ones)))


def frequencies_of(found: np.ndarray, reference: np.ndarray | None) -> list[str]:
    """The columns FREQUENCIES: the six modes nearest to zero are the molecule's motions as a whole."""
    rigid, vibrating = _parted(found)
    error = "" if reference is None else f"{np.abs(vibrating - _parted(reference)[1]).mean():.4g}"
    imaginary = [int((vibrating < 0).sum()), int((found < -BEYOND).sum())]
    return [*map(str, imaginary), f"{vibrating[0]:.4g}" if len(vibrating) else "", f"{np.abs(rigid).max():.4g}", error]


def _parted(frequencies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(np.abs(frequencies))
    return frequencies[order[:RIGID]], np.sort(frequencies[order[RIGID:]])


if __name__ == "__main__":
    main()
