"""ASE's databases (.db), one or a folder of them, row by row; `ase_files` reads them as a whole."""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..file_units import in_stated_units
from ..molecules import Molecules, Origin
from ..reading import ReadOptions
from ..streams.records import Opened, applicable
from .ase_files import from_atoms
from .structures import atoms_of_row


def records(source: str, options: ReadOptions) -> "DatabaseRecords | None":
    """The rows of the databases at `source`; None where there is anything else."""
    path = Path(source)
    if options.relaxations:
        return None
    if path.suffix == ".db":
        return DatabaseRecords([path], options, grouped=False)
    files = sorted(path.glob("*.db")) if path.is_dir() else []
    return DatabaseRecords(files, options, grouped=True) if files and len(files) == len(list(path.iterdir())) else None


class _Database:
    """An open database, and the ids of its rows."""

    def __init__(self, path: Path):
        import ase.db

        self.path = path
        try:
            connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
            try:
                rows = connection.execute("SELECT id FROM systems ORDER BY id")
                self.ids = np.fromiter((number for (number,) in rows), np.int64)
            finally:
                connection.close()
            self.rows = ase.db.connect(str(path), type="db", serial=True)
            self.rows.__enter__()  # one connection for all reads
        except Exception as error:  # sqlite and ASE raise whatever the first byte that puzzles them leads to
            raise _damaged(path, error) from error

    def close(self) -> None:
        self.rows.__exit__(None, None, None)


def _damaged(path: Path, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())
    return ValueError(f"{path}: expected structures that ASE can read, got {type(error).__name__}: {reason}")


class DatabaseRecords:
    """Rows of databases: see `streams.records.Records`."""

    def __init__(self, files: list[Path], options: ReadOptions, grouped: bool):
        self.files, self.options, self.grouped = files, options, grouped
        self._opened = Opened(self._open)

    def _open(self, file: int) -> _Database:
        return _Database(self.files[file])

    def prepare(self, folder: Path) -> None:
        """Nothing: every row is read by itself."""

    def count(self, file: int) -> int:
        return len(self._opened[file].ids)

    def read(self, file: int, numbers: Sequence[int]) -> list[Any]:
        database, path = self._opened[file], self.files[file]
        try:
            return [atoms_of_row(database.rows.get(id=int(database.ids[number]))) for number in numbers]
        except Exception as error:  # sqlite and ASE raise whatever the first byte that puzzles them leads to
            raise _damaged(path, error) from error

    def packed(self, records: list[Any], origin: Origin | None) -> Molecules:
        options = self.options
        packed = from_atoms(records, options.dtype, dict(options.keys), options.forces, origin, partial=True)
        packed = replace(packed, notes=tuple(note for note in packed.notes if "in eV unless" in note))
        return in_stated_units(packed, dict(applicable(options, packed.names).file_units))
