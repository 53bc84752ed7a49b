"""The folder of a run, and what it goes on from: atoms, integrator, random numbers, how long the files were."""

import hashlib
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.md.md import MolecularDynamics

from .._files import PARTIAL, remove_partial_files, write_file
from .integrators import Draws, numbers_of, put_numbers
from .records import HEAD, LOG, PICTURE, TRAJECTORY
from .settings import option

STATE = "state.npz"
FILES = (TRAJECTORY, LOG, STATE, PICTURE)

_ATOMS = ("positions", "momenta", "cell")
_INTEGRATOR = "integrator/"


class State(NamedTuple):
    """As saved in a file after `step`. arrays: of atoms and integrator; rng: of `Draws`; places: of `Record`s."""

    path: Path
    step: int
    arrays: dict[str, np.ndarray]
    rng: list[dict]
    places: list[dict]
    run: dict  # what has to be the same on a resume

    def put(self, atoms: Atoms, integrator: MolecularDynamics, rng: Draws) -> None:
        """Bring the three to where they were. Raises ValueError if they are of another kind."""
        with _named(self.path):
            for name, now in (("positions", atoms.positions), ("momenta", atoms.positions), ("cell", atoms.cell.array)):
                if self.arrays[name].shape != now.shape or not np.isfinite(self.arrays[name]).all():
                    raise ValueError(f"{name}: expected {list(now.shape)} finite numbers")
            if len(self.places) != len(rng.generators):
                raise ValueError(f"places: expected those of {len(rng.generators)} structures")
            rng.state = self.rng
        atoms.set_cell(self.arrays["cell"], scale_atoms=False)
        atoms.set_positions(self.arrays["positions"], apply_constraint=False)
        atoms.set_momenta(self.arrays["momenta"], apply_constraint=False)
        numbers = {key: value for key, value in self.arrays.items() if key.startswith(_INTEGRATOR)}
        put_numbers(integrator, {key.removeprefix(_INTEGRATOR): value for key, value in numbers.items()})


def save_state(
    path: Path, step: int, atoms: Atoms, integrator: MolecularDynamics, rng: Draws, places: list[dict], run: dict
) -> None:
    """Write a state, all or nothing. Raises OSError."""
    arrays = {"positions": atoms.get_positions(), "momenta": atoms.get_momenta(), "cell": atoms.cell.array}
    arrays |= {_INTEGRATOR + name: value for name, value in numbers_of(integrator).items()}
    others = {"step": step, "rng": rng.state, "places": places, "run": run}
    file = io.BytesIO()
    np.savez(file, **arrays, others=np.frombuffer(json.dumps(others).encode(), dtype=np.uint8))
    write_file(path, file.getvalue())


def load_state(path: Path) -> State:
    """A saved state. Raises OSError, and ValueError if the file is no whole one."""
    data = path.read_bytes()
    with _named(path):
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        others = json.loads(arrays.pop("others").tobytes())
        if missing := [name for name in _ATOMS if name not in arrays]:
            raise KeyError(", ".join(missing))
        state = State(path, others["step"], arrays, others["rng"], others["places"], others["run"])
        _check_numbers(state)
        return state


def _check_numbers(state: State) -> None:
    """An error of any kind if something else stands where numbers are to be."""
    numbers = [state.step]
    for place in state.places:
        numbers += [place["step"], place["trajectory"]["size"], place["log"]["size"]]
        if len(bytes.fromhex(place["trajectory"]["head"])) != HEAD:
            raise ValueError("head")
    if not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise ValueError(f"{numbers}")
    state.run.keys()


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Whatever goes wrong within is the fault of the file."""
    try:
        yield
    except Exception as error:  # NumPy, zipfile and json have many for bytes that are none of theirs
        text = " ".join(str(error).split())
        raise ValueError(f"{path}: expected the saved state of a run, got another or damaged file ({text})") from error


def check_folder(out: Path, resume: bool, overwrite: bool) -> None:
    """ValueError or FileExistsError if a run may not write there."""
    if resume and overwrite:
        raise ValueError("--overwrite: expected none with --resume, got both")
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out: expected a folder, got the file {out}")
    if not (resume or overwrite) and out.is_dir() and any(out.iterdir()):
        raise FileExistsError(
            f"--out: expected a new folder, got {out}, which is in use; --resume goes on with a run there, "
            "--overwrite replaces it"
        )


def folder_of(number: int) -> str:
    """Where a run of several structures has the files of one, in its own folder."""
    return f"structure-{number:03}"


def files_of(out: Path) -> list[Path]:
    """What a run that is in a folder has written there, or one would: its state first."""
    folders = [path for path in out.iterdir() if _is_part(path)] if out.is_dir() else []
    return [out / STATE, *(folder / name for folder in (out, *folders) for name in FILES)]


def clear(out: Path) -> None:
    """Delete the files of a run, its state first: what is left is none."""
    for path in files_of(out):
        path.unlink(missing_ok=True)
    for folder in filter(_is_part, list(out.iterdir())):
        remove_partial_files(folder)
        if not any(folder.iterdir()):
            folder.rmdir()


def _is_part(path: Path) -> bool:
    """Whether it is the folder of a structure in that of a run."""
    return path.is_dir() and re.fullmatch(r"structure-\d{3,}", path.name) is not None


def digest(atoms: Atoms) -> str:
    """What tells a starting structure from others."""
    structure = hashlib.sha256(atoms.numbers.astype("<i8").tobytes())
    arrays = [atoms.positions, atoms.cell.array, atoms.pbc, atoms.get_masses()]
    arrays += [atoms.get_momenta()] if atoms.has("momenta") else []
    for array in arrays:
        structure.update(np.asarray(array, dtype="<f8").tobytes())
    structure.update(repr([constraint.todict() for constraint in atoms.constraints]).encode())
    return structure.hexdigest()


def state_to_resume(out: Path, identity: dict) -> State | None:
    """The saved state in `out`; None if the run was stopped before the first one.

    Raises FileNotFoundError, ValueError: there is no run, or another one, whose first difference is named.
    """
    path = out / STATE
    if not out.is_dir():
        raise FileNotFoundError(f"--resume: there is no {path}")
    if not path.is_file():
        others = [one for one in out.iterdir() if one.name not in FILES and one.suffix != PARTIAL and not _is_part(one)]
        if others:
            raise FileNotFoundError(f"--resume: there is no {path}")
        return None
    state = load_state(path)
    for name, value in identity.items():
        if name not in state.run or state.run[name] != value:
            if name in ("checkpoint", "structure"):
                raise ValueError(f"--resume: expected the {name} that the run in {out} began with, got another")
            was = state.run.get(name)
            raise ValueError(f"--resume: expected {option(name)} {was} as in {path}, got {value}")
    return state
