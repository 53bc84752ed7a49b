"""What a run goes on from: atoms, integrator, random numbers, and how long trajectory and log were."""

import io
import json
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.md.md import MolecularDynamics

from .._files import write_file
from .integrators import numbers_of, put_numbers

_ATOMS = ("positions", "momenta", "cell")
_INTEGRATOR = "integrator/"


class State(NamedTuple):
    """As saved after `step`. arrays: of atoms and integrator; rng: of NumPy's generator; places: of the files."""

    step: int
    arrays: dict[str, np.ndarray]
    rng: dict
    places: dict[str, dict]
    run: dict  # what has to be the same on a resume

    def put(self, atoms: Atoms, integrator: MolecularDynamics, rng: np.random.Generator) -> None:
        """Bring the three to where they were."""
        atoms.set_cell(self.arrays["cell"], scale_atoms=False)
        atoms.set_positions(self.arrays["positions"], apply_constraint=False)
        atoms.set_momenta(self.arrays["momenta"], apply_constraint=False)
        numbers = {key: value for key, value in self.arrays.items() if key.startswith(_INTEGRATOR)}
        put_numbers(integrator, {key.removeprefix(_INTEGRATOR): value for key, value in numbers.items()})
        rng.bit_generator.state = self.rng


def save_state(path: Path, step: int, atoms: Atoms, integrator, rng, places: dict[str, dict], run: dict) -> None:
    """Write a state, all or nothing. Raises OSError."""
    arrays = {"positions": atoms.get_positions(), "momenta": atoms.get_momenta(), "cell": atoms.cell.array}
    arrays |= {_INTEGRATOR + name: value for name, value in numbers_of(integrator).items()}
    others = {"step": step, "rng": rng.bit_generator.state, "places": places, "run": run}
    file = io.BytesIO()
    np.savez(file, **arrays, others=np.frombuffer(json.dumps(others).encode(), dtype=np.uint8))
    write_file(path, file.getvalue())


def load_state(path: Path) -> State:
    """A saved state. Raises ValueError if the file is no whole one."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        others = json.loads(arrays.pop("others").tobytes())
        missing = [name for name in _ATOMS if name not in arrays]
        if missing:
            raise KeyError(", ".join(missing))
        return State(others["step"], arrays, others["rng"], others["places"], others["run"])
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        text = " ".join(str(error).split())
        raise ValueError(f"{path}: expected the saved state of a run, got another or damaged file ({text})") from error
