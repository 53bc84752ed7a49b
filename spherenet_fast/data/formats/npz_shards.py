"""A folder of NumPy archives (shards), or a large one, structure by structure: rows of arrays, read where they lie.

Arrays of ``numpy.savez`` lie in the file as they are. Those of ``numpy.savez_compressed`` cannot be read in part, so
such an archive is unpacked first.
"""

import os
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..molecules import Molecules, Origin
from ..reading import ReadOptions, as_stated
from ..streams.records import Opened, applicable
from ..targets import is_total_energy
from .archives import Archive
from .npz import MD17_NAMES, packed_molecules, stated_units

_OF_ATOMS = ("z", "pos", "forces", "fixed")
_OF_CELLS = ("cell", "lattice")


def holds(source: str) -> bool:
    """Whether `source` is a folder of archives and nothing else but notes."""
    path = Path(source)
    if not path.is_dir():
        return False
    notes = ("README", "LICENSE", "LICENCE", ".")
    files = [file for file in path.iterdir() if not file.name.upper().startswith(notes)]
    return bool(files) and all(file.suffix == ".npz" for file in files)


def read_source(source: str, options: ReadOptions) -> Molecules:
    """All structures of a folder."""
    shards = NpzRecords(source, options)
    with tempfile.TemporaryDirectory() as folder:
        shards.prepare(Path(folder))
        counts = [shards.count(file) for file in range(len(shards.files))]
        blocks = [block for file, count in enumerate(counts) for block in shards.read(file, range(count))]
        return shards.packed(blocks, Origin(tuple(map(str, shards.files)), tuple(counts)))


def records(source: str, options: ReadOptions) -> "NpzRecords | None":
    """The structures of a folder of archives, or of one; None where there is anything else."""
    known = not options.relaxations and (source.endswith(".npz") or holds(source))
    return NpzRecords(source, options) if known else None


class _Array(NamedTuple):
    """Where an array lies in a file."""

    begin: int
    shape: tuple[int, ...]
    dtype: np.dtype


class _Shard:
    """An archive of one of the layouts "packed" and "frames of one molecule", whose rows are read one by one.

    Attributes:
        count: of structures. whole: arrays that hold for all of them. rows: names of arrays with rows of structures or
            of atoms.
    """

    def __init__(self, path: Path, name: Path):
        """path: of the file, which is not compressed; name: of the archive for the user."""
        self.name = name
        with Archive(path) as archive:
            archive.path = name
            self.of_md17 = archive.rename(MD17_NAMES)
            for needed in ("z", "pos"):
                if needed not in archive:
                    raise ValueError(f"{name}: expected arrays z and pos, to be read in part, got {', '.join(archive)}")
            self._arrays = {key: _Array(*archive.place(key)) for key in archive}
            self.frames = "n_atoms" not in archive
            self.whole: dict[str, np.ndarray] = {}
            if self.frames:
                self.count, self._z = self._arrays["pos"].shape[0], archive.whole("z", "N")
                self._offset = np.arange(self.count + 1) * len(self._z)
            else:
                self._offset = np.concatenate([[0], np.cumsum(archive.whole("n_atoms", "M"))])
                self.count = len(self._offset) - 1
                if min(np.diff(self._offset), default=1) < 1:
                    raise archive.error("n_atoms", "expected at least 1 atom per molecule, got fewer")
            self.rows = [key for key in self._arrays if self._has_rows(archive, key)]
            for key, (_, shape, dtype) in self._arrays.items():
                if key not in self.rows and (dtype.kind in "US" or key in (*_OF_CELLS, "pbc", "fixed")):
                    self.whole[key] = np.asarray(archive.texts(key)) if dtype.kind in "US" else archive.array(key)
        self._file = os.open(path, os.O_RDONLY)

    def close(self) -> None:
        os.close(self._file)

    def _has_rows(self, archive: Archive, key: str) -> bool:
        """Whether an array has a row for each structure, or each atom of all; ValueError where one of atoms has not."""
        _, shape, dtype = self._arrays[key]
        if dtype.kind not in "biuf" or not shape:
            return False
        if key in _OF_CELLS or key == "pbc":
            return len(shape) == (3 if key in _OF_CELLS else 2) and shape[0] == self.count
        if key in _OF_ATOMS and not self.frames:
            if shape[0] != self._offset[-1]:
                raise archive.error(key, f"expected {self._offset[-1]} rows (the sum of n_atoms), got {shape[0]}")
            return True
        if self.frames:
            return key in ("pos", "forces", "energy") and shape[0] == self.count
        return key != "n_atoms" and shape[0] == self.count and (len(shape) == 1 or key == "y")

    def block(self, first: int, last: int) -> dict[str, np.ndarray]:
        """The structures first to last - 1 as arrays of the layout "packed"."""
        found = {"n_atoms": np.diff(self._offset[first : last + 1])}
        for key in self.rows:
            of_atoms = key in _OF_ATOMS and not self.frames
            begin, end = (self._offset[first], self._offset[last]) if of_atoms else (first, last)
            found[key] = self._read(key, int(begin), int(end))
        if self.frames:
            found["z"] = np.tile(self._z, last - first)
            for key in {"pos", "forces"} & found.keys():
                found[key] = found[key].reshape(-1, 3)
            if "energy" in found:
                found["energy"] = found["energy"].reshape(-1)
            if "fixed" in self.whole:
                found["fixed"] = np.tile(self.whole["fixed"], last - first)
        return found

    def _read(self, key: str, first: int, last: int) -> np.ndarray:
        place, shape, dtype = self._arrays[key]
        size = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
        content = os.pread(self._file, (last - first) * size, place + first * size)
        if len(content) != (last - first) * size:
            raise ValueError(f"{self.name}: {key}: truncated while it was read")
        return np.frombuffer(content, dtype).reshape(last - first, *shape[1:]).astype(dtype.newbyteorder("="))


class _Rows(Archive):
    """Arrays in memory as if they were an archive."""

    def __init__(self, path: Path, arrays: dict[str, np.ndarray]):
        self.path, self._arrays, self._used = path, arrays, set()
        self._members = {name: name for name in arrays}

    def _header(self, name: str):
        return self._arrays[name].shape, self._arrays[name].dtype

    def _read(self, name: str) -> np.ndarray:
        return self._arrays[name]


class NpzRecords:
    """Structures of the archives in a folder, or of one: see `streams.records.Records`."""

    grouped = False

    def __init__(self, source: str, options: ReadOptions):
        path = Path(source)
        self.path, self.options = path, options
        self.files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
        self._unpacked: dict[int, Path] = {}
        self._opened = Opened(self._open)

    def prepare(self, folder: Path) -> None:
        for number, file in enumerate(self.files):
            copy = folder / f"{number}.npz"
            if not copy.is_file() and Archive.is_compressed(file):
                _unpack(file, copy)
            if copy.is_file():
                self._unpacked[number] = copy

    def _open(self, file: int) -> _Shard:
        return _Shard(self._unpacked.get(file, self.files[file]), self.files[file])

    def count(self, file: int) -> int:
        first, shard = self._opened[0], self._opened[file]
        if sorted(shard.rows) != sorted(first.rows) or shard.whole.keys() != first.whole.keys():
            names, expected = (", ".join(sorted([*each.rows, *each.whole])) for each in (shard, first))
            raise ValueError(f"{shard.name}: expected arrays {expected}, as in {first.name}, got {names}")
        for key, value in first.whole.items():
            if not self._same(key, value, shard.whole[key]):
                raise ValueError(f"{shard.name}: {key}: expected the same as in {first.name}, got another")
        if shard.of_md17 != first.of_md17:
            raise ValueError(f"{shard.name}: expected the names of arrays of {first.name}, got others")
        return shard.count

    @staticmethod
    def _same(key: str, one: np.ndarray, other: np.ndarray) -> bool:
        return key in (*_OF_CELLS, "pbc", "fixed") or np.array_equal(one, other)

    def read(self, file: int, numbers: Sequence[int]) -> list[dict[str, np.ndarray]]:
        shard = self._opened[file]
        if list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
            return [self._with_cells(shard, numbers[0], numbers[-1] + 1)]
        return [self._with_cells(shard, number, number + 1) for number in numbers]

    @staticmethod
    def _with_cells(shard: _Shard, first: int, last: int) -> dict[str, np.ndarray]:
        found = shard.block(first, last)
        for key in {*_OF_CELLS, "pbc"} & shard.whole.keys():
            shape = (3,) if key == "pbc" else (3, 3)
            found[key] = np.broadcast_to(shard.whole[key], (last - first, *shape))
        return found

    def packed(self, records: list[dict[str, np.ndarray]], origin: Origin | None) -> Molecules:
        options, shard = self.options, self._opened[0]
        arrays: dict[str, Any] = {key: np.concatenate([record[key] for record in records]) for key in records[0]}
        arrays |= {key: value for key, value in shard.whole.items() if value.dtype.kind in "US"}
        archive = _Rows(self.path, arrays)
        corrected = {options.keys.get(name, name) for name in options.file_units}
        energies = {label for name, label in options.keys.items() if is_total_energy(name, None)}
        units = stated_units(archive, corrected)
        unit = units.pop("energy", None) or ("kcal/mol" if shard.of_md17 else None)
        packed = packed_molecules(archive, options.dtype, unit, energies)
        return as_stated(replace(packed, origin=origin), applicable(options, packed.names), units)


def _unpack(file: Path, copy: Path) -> None:
    """Copy an archive without the compression, all or nothing."""
    partial = copy.with_suffix(".partial")
    try:
        with zipfile.ZipFile(file) as archive, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as unpacked:
            for info in archive.infolist():
                with archive.open(info) as source, unpacked.open(info.filename, "w", force_zip64=True) as target:
                    shutil.copyfileobj(source, target, 2**20)
    except Exception as error:  # zipfile raises whatever the first byte that puzzles it leads to
        raise ValueError(f"{file}: expected a NumPy archive (.npz), got a damaged one ({error})") from error
    os.replace(partial, copy)
