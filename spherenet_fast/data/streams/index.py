"""The index of a data set: facts about all structures, found in one pass and kept for the next run."""

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import DataLoader, Dataset

from ..._files import FolderLock, cannot_be_written, write_file
from ..molecules import Origin
from ..reading import ReadOptions
from .facts import DTYPES, LABEL, Facts, facts_of
from .records import Records

FORMAT = 1
PASS = 1024  # structures at a time
_META = "index.json"


class Index(NamedTuple):
    """Facts about M structures. Columns are on the disk and mapped, so they need no memory of their own.

    Attributes:
        columns: {name: array}, see `facts`.
        counts: structures of every file.
        units: {target: unit}.
        has: which of "forces", "stress", "cell" and "fixed" some structure has.
        vectors, notes: see `Molecules`.
    """

    columns: Mapping[str, np.ndarray]
    counts: tuple[int, ...]
    units: dict[str, str | None]
    has: frozenset[str]
    vectors: tuple[str, ...]
    notes: tuple[str, ...]


def read_index(records: Records, source: str, options: ReadOptions, workers: int) -> Index:
    """The index of `records`: that of an earlier run, where no file and no option has changed since; else a new one.

    Raises:
        OSError: the index cannot be written.
        ValueError: a file is damaged, or a structure is one that no model can take; the message names it.
    """
    folder = index_folder(options) / _digest(records, source, options)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_be_written(folder, error) from error
    with FolderLock() as lock:
        while not lock.take(folder):  # another process, as a rank of this run, is at it
            time.sleep(1)
        records.prepare(folder)
        if (found := _stored(folder)) is None:
            _write(records, folder, source, workers)
            found = _stored(folder)
    if found is None:
        raise ValueError(f"{folder}: expected the index of {source} as it was written, got another")
    return found


def index_folder(options: ReadOptions) -> Path:
    """Where indices are: that of the options, or spherenet_fast in the user's cache."""
    if options.index is not None:
        return Path(options.index).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "spherenet_fast"


def _digest(records: Records, source: str, options: ReadOptions) -> str:
    """Files with sizes and times, and the options that decide about their contents, in one word."""
    stated = {"format": FORMAT, "source": str(Path(source).absolute()), "labels": options.labels}
    stated |= {"dtype": str(options.dtype), "relaxations": options.relaxations, "forces": options.forces}
    stated |= {"file_units": dict(options.file_units), "keys": dict(options.keys)}
    stats = [(file, file.stat()) for file in records.files]
    stated["files"] = [[str(file.absolute()), stat.st_size, stat.st_mtime_ns] for file, stat in stats]
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()[:24]


def _stored(folder: Path) -> Index | None:
    """The index in a folder; None where there is none, or not all of one."""
    try:
        meta = json.loads((folder / _META).read_text())
        columns = {}
        for name, (file, dtype, length) in meta["columns"].items():
            place = folder / file
            if place.stat().st_size != length * np.dtype(dtype).itemsize:
                return None
            # copy on write: torch asks for arrays that can be written
            columns[name] = np.memmap(place, dtype, "c", shape=(length,)) if length else np.empty(0, dtype)
        units, lists = meta["units"], (tuple(meta[name]) for name in ("vectors", "notes"))
        return Index(columns, tuple(meta["counts"]), units, frozenset(meta["has"]), *lists)
    except (OSError, ValueError, KeyError, TypeError):
        return None


class _Pass(Dataset):
    """Facts of so many structures of a file, read in any process; an error is a result, too."""

    def __init__(self, records: Records):
        self.records = records

    def __getitem__(self, part: tuple[int, int, int, int]) -> Facts | Exception:
        file, first, last, count = part
        name = str(self.records.files[file])
        try:
            found = self.records.read(file, range(first, last))
            return facts_of(self.records.packed(found, Origin((name,), (count,), first)))
        except (OSError, ValueError, TypeError) as error:
            text = str(error)
            return ValueError(text if name in text else f"{name}: structures {first} to {last - 1}: {text}")


def _parts(counts: list[int]) -> Iterator[tuple[int, int, int, int]]:
    for file, count in enumerate(counts):
        for first in range(0, count, PASS):
            yield file, first, min(first + PASS, count), count


def _write(records: Records, folder: Path, source: str, workers: int) -> None:
    """Read all structures once and write the columns, and what all have, last of all."""
    counts = [records.count(file) for file in range(len(records.files))]
    if not sum(counts):
        raise ValueError(f"{source}: expected at least one structure, got none")
    began, shown, total = time.monotonic(), 0.0, sum(counts)
    columns = _Columns(folder)
    parts = DataLoader(_Pass(records), batch_size=None, sampler=_parts(counts), num_workers=workers, collate_fn=_same)
    try:
        for facts in parts:
            if isinstance(facts, Exception):
                raise facts
            columns.add(facts)
            if time.monotonic() - max(shown, began) > 10 and sys.stderr.isatty():
                shown = time.monotonic()
                print(f"\r{source}: {columns.rows} of {total} structures looked at", end="", file=sys.stderr)
    except OSError as error:
        raise cannot_be_written(folder, error) from error
    finally:
        columns.close()
    print(f"{source}: {total} structures looked at in {time.monotonic() - began:.0f} s; index in {folder}", flush=True)
    meta = {"columns": columns.lengths(), "counts": counts, "units": columns.units, "has": sorted(columns.has)}
    meta |= {"vectors": list(columns.vectors), "notes": list(columns.notes)}
    write_file(folder / _META, json.dumps(meta).encode())


def _same(facts):
    return facts


class _Columns:
    """Files that grow by the facts of a few structures at a time."""

    def __init__(self, folder: Path):
        self.folder, self.rows, self.entries = folder, 0, 0
        self.units: dict[str, str | None] = {}
        self.has: set[str] = set()
        self.vectors: dict[str, None] = {}
        self.notes: dict[str, None] = {}
        self._files: dict[str, Any] = {}
        self._dtypes: dict[str, Any] = {}
        for name in DTYPES:
            self._open(name, DTYPES[name])

    def _open(self, name: str, dtype) -> None:
        self._files[name] = open(self.folder / f"{len(self._files)}.bin", "wb")
        self._dtypes[name] = np.dtype(dtype)

    def add(self, facts: Facts) -> None:
        """Write some rows. Raises ValueError where the unit of a target is another than before."""
        for target, unit in facts.units.items():
            if self.units.setdefault(target, unit) != unit:
                raise ValueError(f"{target}: expected one unit in all structures, got {self.units[target]} and {unit}")
            if LABEL(target) not in self._files:
                self._open(LABEL(target), np.float64)
                for first in range(0, self.rows, 2**20):
                    np.full(min(2**20, self.rows - first), np.nan).tofile(self._files[LABEL(target)])
        count = len(facts.columns["n_atoms"])
        for name, file in self._files.items():
            values = facts.columns.get(name)
            values = np.full(count, np.nan) if values is None else values
            (values + self.entries if name == "first_element" else values).tofile(file)
        self.rows, self.entries = self.rows + count, self.entries + len(facts.columns["elements"])
        self.has |= facts.has
        self.vectors |= dict.fromkeys(facts.vectors)
        self.notes |= dict.fromkeys(facts.notes)

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def lengths(self) -> dict[str, tuple[str, str, int]]:
        """File, dtype and length of every column."""
        found = {}
        for name, file in self._files.items():
            size = os.path.getsize(file.name) // self._dtypes[name].itemsize
            found[name] = os.path.basename(file.name), self._dtypes[name].str, size
        return found
