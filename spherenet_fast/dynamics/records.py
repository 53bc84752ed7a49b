"""Files that grow: a trajectory and a log, whole at any moment, and cut back to where a saved state knows them."""

import csv
import io
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io.trajectory import TrajectoryWriter

from .._files import append_line, cannot_be_written, remove_partial_files, sync, write_file
from ..plots.energies import draw_energies, drift
from ..plots.files import save

TRAJECTORY, LOG, PICTURE = "trajectory.traj", "log.csv", "energy.png"
HEAD = 48  # bytes of a .traj before its first frame: kind, version, number of frames, where their places are listed
KIND = 32  # bytes of these that are the same in all of them
OTHER_FILES = 64  # that the process has open beside the trajectories


def check_open_files(count: int) -> None:
    """ValueError if not so many trajectories can be open at once; where it may, the process asks for more of them."""
    try:
        import resource
    except ImportError:  # not a Unix
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + OTHER_FILES
    if resource.RLIM_INFINITY != soft < needed:
        if resource.RLIM_INFINITY != hard < needed:
            raise ValueError(
                f"structures: expected at most {max(hard - OTHER_FILES, 1)}, as many files may be open at once "
                f"(ulimit -n), got {count}; --frame chooses one"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


class Trajectory:
    """An ASE trajectory (.traj): frames in full precision with energy, forces, velocities and cell.

    A frame counts from the moment when all of it is in the file, so that a process may be killed within it.

    Args:
        path: of a trajectory that is there, to which frames are added; see `begin`.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self._writer = TrajectoryWriter(self.path, "a")

    @classmethod
    def begin(cls, path: Path, atoms: Atoms) -> "Trajectory":
        """One whose first frame is `atoms`; the file is replaced, or whole when it appears."""
        first = io.BytesIO()
        TrajectoryWriter(first, "w").write(atoms)
        write_file(path, first.getvalue())
        return cls(path)

    def write(self, atoms: Atoms) -> None:
        """Add a frame. Raises OSError."""
        try:
            self._writer.write(atoms)
        except OSError as error:
            raise cannot_be_written(self.path, error) from error

    def place(self) -> dict:
        """What `cut` needs to come back here; all frames are on the disk then."""
        sync(self.path)
        with open(self.path, "rb") as file:
            head = file.read(HEAD)
        return {"head": head.hex(), "size": self.path.stat().st_size}

    @staticmethod
    def cut(path: Path, place: dict) -> None:
        """Drop the frames after `place`. Raises ValueError if the file is shorter or another one, OSError."""
        _check_size(path, place["size"])
        head = bytes.fromhex(place["head"])
        with open(path, "r+b") as file:
            if file.read(KIND) != head[:KIND]:
                raise ValueError(f"{path}: expected the trajectory that belongs to the saved state, got another file")
            file.seek(0)
            file.write(head)  # the frames are gone before their bytes are
            file.flush()
            file.truncate(place["size"])

    def close(self) -> None:
        """Let go of the file. Not the writer's `close`, which would count a frame that was left unfinished."""
        with suppress(OSError):  # of such a frame, where the disk is full
            self._writer.backend.fd.close()


class Log:
    """A CSV of numbers, written row by row, each as short as gives the same number back.

    Args:
        path: of a log that is there; see `begin`.
    """

    def __init__(self, path: Path):
        self.path = Path(path)

    @classmethod
    def begin(cls, path: Path, columns) -> "Log":
        write_file(path, (",".join(columns) + "\n").encode())
        return cls(path)

    def write(self, row) -> None:
        """Add a row. Raises OSError."""
        append_line(self.path, (",".join(repr(x) for x in row) + "\n").encode())

    def place(self) -> dict:
        sync(self.path)
        return {"size": self.path.stat().st_size}

    @staticmethod
    def cut(path: Path, place: dict) -> None:
        _check_size(path, place["size"])
        os.truncate(path, place["size"])


class Record:
    """What is written of one structure that moves, into a folder: a trajectory, a log and a picture of the energy.

    Attributes:
        step: of the newest frame.
        conserved: name of the column that should be constant, or None.
    """

    def __init__(self, folder: Path, atoms: Atoms, conserved: str | None, step: int = 0):
        self.folder, self.atoms, self.conserved, self.step = folder, atoms, conserved, step
        self._trajectory, self._log = Trajectory(folder / TRAJECTORY), Log(folder / LOG)

    @classmethod
    def begin(cls, folder: Path, atoms: Atoms, conserved: str | None, columns: Sequence[str]) -> "Record":
        """One with a first frame and no rows."""
        folder.mkdir(parents=True, exist_ok=True)
        remove_partial_files(folder)
        atoms.info = {"step": 0, "time_ps": 0.0}
        Trajectory.begin(folder / TRAJECTORY, atoms).close()
        Log.begin(folder / LOG, columns)
        return cls(folder, atoms, conserved)

    @classmethod
    def cut(cls, folder: Path, atoms: Atoms, conserved: str | None, place: dict) -> "Record":
        """The one in a folder, back where `place` knows it. Raises ValueError if the files are others, OSError."""
        remove_partial_files(folder)
        Trajectory.cut(folder / TRAJECTORY, place["trajectory"])
        Log.cut(folder / LOG, place["log"])
        return cls(folder, atoms, conserved, place["step"])

    def frame(self, step: int, time_ps: float) -> None:
        """Add the atoms as they are, once for a step. Raises OSError."""
        if step != self.step:
            self.atoms.info = {"step": step, "time_ps": time_ps}
            self._trajectory.write(self.atoms)
            self.step = step

    def row(self, numbers: Sequence[float]) -> None:
        """Add a row to the log. Raises OSError."""
        self._log.write(numbers)

    def place(self) -> dict:
        """What `cut` needs to come back here; all frames and rows are on the disk then."""
        return {"trajectory": self._trajectory.place(), "log": self._log.place(), "step": self.step}

    def draw(self) -> None:
        """The picture. Raises OSError."""
        save(draw_energies(read_log(self.folder / LOG), self.conserved), self.folder / PICTURE)

    def drift(self) -> float | None:
        """meV/ps of the energy that should be constant; None where none should."""
        if self.conserved is None:
            return None
        log = read_log(self.folder / LOG)
        return drift(log["time_ps"], log[self.conserved])

    def close(self) -> None:
        self._trajectory.close()


def read_log(path) -> dict[str, np.ndarray]:
    """The columns of a log, without a last row that was cut off. Raises ValueError for what is no number."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(line for line in file.read().splitlines(keepends=True) if line.endswith("\n")))
    try:
        values = np.array([[float(cell) for cell in row] for row in rows[1:]]).reshape(-1, len(rows[0]))
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path}: expected rows of as many numbers as columns, got others ({error})") from error
    return dict(zip(rows[0], values.T, strict=True))


def _check_size(path: Path, size: int) -> None:
    came = path.stat().st_size if path.is_file() else None
    if came is None or came < size:
        got = "none" if came is None else f"{came}"
        raise ValueError(f"{path}: expected at least the {size} bytes that belong to the saved state, got {got}")
