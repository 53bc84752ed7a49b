"""The LMDBs in which the Open Catalyst Project publishes OC20: pickled PyTorch Geometric data, one record a structure.

Unpickling can run any code, so what these files may name is limited to a dozen constructors of plain data, which stand
in for torch's and NumPy's and check what they get: a file that names anything else is refused, and nothing of it is
called. Neither PyTorch Geometric nor the package lmdb is needed.
"""

import io
import pickle
import pickletools
import warnings
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..centering import centered
from ..molecules import Molecules, Origin
from ..reading import ReadOptions, as_stated
from ..streams.records import Opened, applicable
from .archives import truth_values, whole_numbers
from .lmdb_file import LmdbFile
from .relaxations import RELAXATION_TARGETS


class _Sealed(type):
    """Of classes that a pickle may name but not change: its BUILD sets attributes of whatever it has named."""

    def __setattr__(cls, name, value):
        raise pickle.UnpicklingError(f"it sets {cls.__name__}.{name}")


class _Record(metaclass=_Sealed):
    """What a PyTorch Geometric object says of itself, without its class."""

    def __setstate__(self, state):
        self.__dict__.update(state)


class _StoredTensor(metaclass=_Sealed):
    """A tensor not read yet, as most of a record is not needed."""

    __slots__ = ("storage", "layout")

    def __init__(self, storage: bytes, *layout: Any):
        self.storage, self.layout = storage, layout

    def numpy(self) -> np.ndarray:
        try:
            storage = torch.load(io.BytesIO(self.storage), map_location="cpu", weights_only=True)
        except Exception as error:  # torch's message advises to run what the file names
            raise ValueError("got a damaged tensor, or one of other than plain numbers") from error
        offset, size, stride = self.layout[:3]
        # as_strided refuses to leave the storage, where set_ would enlarge it
        flat = torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage)
        return flat.as_strided(size, stride, offset).numpy()


class _Dtype(metaclass=_Sealed):
    """A dtype of plain numbers. NumPy's own believes any layout that a pickle states."""

    __slots__ = ("numbers",)

    def __init__(self, name: str, *_: Any):
        self.numbers = np.dtype(str(name))
        if self.numbers.kind not in "biuf":
            raise pickle.UnpicklingError(f"it holds an array of {name}, expected one of numbers")

    def __setstate__(self, state):
        if state[1] in ("<", ">"):
            self.numbers = self.numbers.newbyteorder(state[1])


class _Array(metaclass=_Sealed):
    """An array not made yet, from a buffer or from a state; NumPy's own constructor would follow pointers in it."""

    __slots__ = ("layout",)

    def __init__(self, *layout: Any):
        self.layout = layout

    def __setstate__(self, state):
        _, shape, dtype, by_columns, data = state
        self.layout = data, dtype, shape, "F" if by_columns else "C"

    def numpy(self) -> np.ndarray:
        data, dtype, shape, order = self.layout
        if not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError("it holds an array without a dtype")
        return np.frombuffer(data, dtype.numbers).reshape(shape, order=order).astype(dtype.numbers.newbyteorder("="))


class _Scalar(metaclass=_Sealed):
    """A scalar of NumPy's, as an array of no dimensions."""

    def __new__(cls, dtype: _Dtype, data: bytes) -> _Array:
        return _Array(data, dtype, (), "C")


class _Latin1(metaclass=_Sealed):
    """How NumPy's pickles spell bytes."""

    def __new__(cls, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"bytes encoded as {encoding}")
        return text.encode(encoding)


_ADMITTED = {
    **{("torch_geometric.data.data", name): _Record for name in ("Data", "DataEdgeAttr", "DataTensorAttr")},
    ("torch_geometric.data.storage", "GlobalStorage"): _Record,
    ("torch._utils", "_rebuild_tensor_v2"): _StoredTensor,
    ("torch.storage", "_load_from_bytes"): bytes,
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "ndarray"): None,  # named, never called
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Latin1,
}
for _core in ("numpy.core", "numpy._core"):  # before and after NumPy 2
    _ADMITTED[f"{_core}.multiarray", "_reconstruct"] = _Array
    _ADMITTED[f"{_core}.multiarray", "scalar"] = _Scalar
    _ADMITTED[f"{_core}.numeric", "_frombuffer"] = _Array


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not needed for data")
        return _ADMITTED[module, name]


def holds(source: str) -> bool:
    """Whether `source` is an LMDB, a file or a folder with data.mdb, or a folder of LMDBs."""
    path = Path(source)
    return path.suffix == ".lmdb" or path.name == "data.mdb" or (path.is_dir() and bool(_files(path)))


def _files(path: Path) -> list[Path]:
    """The files of an LMDB, or of all in a folder."""
    if not path.is_dir():
        return [path]
    if (path / "data.mdb").is_file():
        return [path / "data.mdb"]
    return [file for inside in sorted(path.glob("*.lmdb")) for file in _files(inside)]


def records(source: str, options: ReadOptions) -> "LmdbRecords | None":
    """The records of all files at `source`; None where there is no LMDB."""
    return LmdbRecords(source, options) if holds(source) else None


def read_source(source: str, options: ReadOptions) -> Molecules:
    return as_stated(read_lmdb(source, options.dtype, options.relaxations), options)


def read_lmdb(path, dtype: torch.dtype = torch.float32, relaxations: bool = False) -> Molecules:
    """Read an LMDB of OC20, or all of a folder, into memory.

    A record has pos [N, 3], atomic_numbers [N], cell [1, 3, 3] and fixed [N], and, where they are known, y_relaxed and
    y_init (IS2RE: targets relaxed_energy and initial_energy) or y and force (S2EF: the target energy and forces), in Å
    and eV. A label that only some records have is NaN in the others. OC20's other entries, as tags, pos_relaxed and
    stored edges, are not used; entries that it does not have are named in a warning. Cells repeat in all directions.

    Args:
        path: a file, a folder with data.mdb, or a folder of such files and folders named ``*.lmdb``.
        dtype: of positions and forces.
        relaxations: whether records with y_relaxed are expected.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file is truncated or damaged, holds no records, or names anything but data.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such data file")
    other: Counter = Counter()
    records = [_arrays(file, number, record, other) for file in _files(path) for number, record in _records(file)]
    if not records:
        raise ValueError(f"{path}: expected records, got none")
    if other:
        warnings.warn(_not_used(path, other), stacklevel=2)
    return _packed(path, records, dtype, relaxations)


def _not_used(path: Path, other: Counter) -> str:
    return f"{path}: not used, as they are not understood: entries {', '.join(sorted(other))}"


def _packed(path: Path, records: list[dict[str, np.ndarray]], dtype: torch.dtype, relaxations: bool) -> Molecules:
    """What `_arrays` returned of at least one record."""
    names = [name for name in (*RELAXATION_TARGETS, "energy") if any(name in record for record in records)]
    if relaxations and not all(RELAXATION_TARGETS[0] in record for record in records):
        raise ValueError(f"data.relaxations: expected y_relaxed in every record of {path}, got some without")

    def joined(name, to, absent=None):
        """The entry of all records, the row `absent` for each atom of one without it; None if no record has it."""
        if not any(name in record for record in records):
            return None
        parts = [record[name] if name in record else np.array([absent] * len(record["z"])) for record in records]
        return torch.from_numpy(np.concatenate(parts)).to(to)

    y = [[float(record.get(name, np.nan)) for name in names] for record in records]
    n_atoms, cell = torch.tensor([len(record["z"]) for record in records]), joined("cell", torch.float64)
    return Molecules.from_file(
        path,
        n_atoms=n_atoms,
        z=joined("z", torch.int64),
        pos=centered(np.concatenate([record["pos"] for record in records]), n_atoms, cell, None, dtype),
        y=torch.tensor(y, dtype=torch.float64),
        names=tuple(names),
        units=("eV",) * len(names),
        forces=joined("forces", dtype, [np.nan] * 3),
        cell=cell.to(dtype),
        pbc=torch.ones(len(records), 3, dtype=torch.bool),
        fixed=joined("fixed", torch.bool, False),
    )


_ENTRIES = {  # of a record -> name and shape here
    "pos": ("pos", (-1, 3)),
    "atomic_numbers": ("z", (-1,)),
    "cell": ("cell", (1, 3, 3)),
    "fixed": ("fixed", (-1,)),
    "force": ("forces", (-1, 3)),
    "y": ("energy", ()),
    "y_relaxed": (RELAXATION_TARGETS[0], ()),
    "y_init": (RELAXATION_TARGETS[1], ()),
}

# Entries of OC20 that are not used, as they follow from the others, are of other structures or only name them.
_UNUSED = frozenset(
    "edge_index edge_attr cell_offsets distances neighbors natoms num_nodes tags pos_relaxed sid fid id".split()
)


def _fields(record: Any) -> dict[str, Any]:
    """What a record holds, in the layout of PyTorch Geometric 2 (a store with a mapping) or 1 (attributes)."""
    fields = vars(record) if isinstance(record, _Record) else {}
    if isinstance(store := fields.get("_store"), _Record):
        fields = vars(store).get("_mapping")
    if not isinstance(fields, dict):
        raise ValueError(f"got attributes in a {type(fields).__name__}")
    return fields


def _numbers(value: Any) -> np.ndarray:
    """The array of an entry. Nothing else is asked to become one: NumPy would believe an address that it states."""
    if isinstance(value, (_StoredTensor, _Array)):
        value = value.numpy()
    elif isinstance(value, (bool, int, float)):
        value = np.asarray(value)
    else:
        raise ValueError(f"expected numbers, got a {type(value).__name__}")
    if value.dtype.kind not in "biuf" or value.dtype.itemsize > 8:
        raise ValueError(f"expected numbers of at most 64 bits, got {value.dtype}")
    return value.view(np.uint8) != 0 if value.dtype == bool else value  # a byte may be neither 0 nor 1


def _arrays(file: Path, number: int, record: Any, other: Counter) -> dict[str, np.ndarray]:
    """The entries of a record that are used, by name; those that are not understood are counted in `other`."""
    try:
        fields = {key: value for key, value in _fields(record).items() if value is not None}
        if missing := {"pos", "atomic_numbers", "cell"} - fields.keys():
            raise ValueError(f"got none called {' or '.join(sorted(missing))}")
        other.update(str(key) for key in fields.keys() - _ENTRIES.keys() - _UNUSED if not str(key).startswith("_"))
        given = [(key, *entry) for key, entry in _ENTRIES.items() if key in fields]
        arrays = {name: _numbers(fields[key]).reshape(shape) for key, name, shape in given}
        arrays["z"] = whole_numbers(arrays["z"])
        if "fixed" in arrays:
            arrays["fixed"] = truth_values(arrays["fixed"])
        return arrays
    except Exception as error:  # whatever a damaged storage or layout leads to
        expected = "expected pos [N, 3], atomic_numbers [N] and cell [1, 3, 3]"
        raise ValueError(f"{file}: record {number}: {expected}; {error}") from error


def _unpickled(file: Path, data: bytes) -> Any:
    try:
        # Python's unpickler makes room for as many objects as the largest number by which one is remembered.
        for opcode, number, _ in pickletools.genops(data):
            if opcode.name in ("PUT", "LONG_BINPUT") and number > len(data):
                raise pickle.UnpicklingError(f"it numbers an object {number}")
        return _Unpickler(io.BytesIO(data)).load()
    except Exception as error:  # pickle raises whatever the first byte that puzzles it leads to
        reason = " ".join(str(error).split())
        raise ValueError(f"{file}: expected an LMDB of pickled structures: {reason}") from error


def _count(file: Path, length: Any) -> int:
    try:
        return int(whole_numbers(_numbers(length)))
    except Exception as error:  # whatever a damaged storage or layout leads to
        raise ValueError(f"{file}: length: expected the number of records; {error}") from error


def _length(file: Path, database: LmdbFile) -> int:
    """The number of records of a file."""
    length = database.get(b"length")
    return len(database) if length is None else _count(file, _unpickled(file, length))


def _record(file: Path, database: LmdbFile, number: int, count: int) -> Any:
    value = database.get(str(number).encode())
    if value is None:
        raise ValueError(f"{file}: expected {count} records, got none with number {number}")
    return _unpickled(file, value)


def _records(file: Path):
    """Number and object of every record of a file."""
    with LmdbFile(file) as database:
        count = _length(file, database)
        for number in range(count):
            yield number, _record(file, database, number, count)


class LmdbRecords:
    """The records of `read_lmdb`, read one by one: see `streams.records.Records`."""

    grouped = False

    def __init__(self, source: str, options: ReadOptions):
        self.path, self.options, self.files = Path(source), options, _files(Path(source))
        self._opened = Opened(self._open)

    def _open(self, file: int) -> LmdbFile:
        return LmdbFile(self.files[file], check=False)

    def prepare(self, folder: Path) -> None:
        """Nothing: every record is read by itself."""

    def count(self, file: int) -> int:
        return _length(self.files[file], self._opened[file])

    def read(self, file: int, numbers: Sequence[int]) -> list[tuple[dict[str, np.ndarray], Counter]]:
        path, database, found = self.files[file], self._opened[file], []
        for number in numbers:
            other: Counter = Counter()
            record = _record(path, database, number, len(database))
            found.append((_arrays(path, number, record, other), other))
        return found

    def packed(self, records: list[tuple[dict[str, np.ndarray], Counter]], origin: Origin | None) -> Molecules:
        options, other = self.options, sum((other for _, other in records), Counter())
        packed = _packed(self.path, [record for record, _ in records], options.dtype, options.relaxations)
        notes = (_not_used(self.path, other),) if other else ()
        return as_stated(replace(packed, origin=origin, notes=notes), applicable(options, packed.names))
