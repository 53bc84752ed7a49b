"""The LMDBs in which the Open Catalyst Project publishes OC20: pickled PyTorch Geometric data, one record a structure.

Unpickling can run any code, so what these files may name is limited to a dozen constructors of plain data, which stand
in for torch's and NumPy's and check what they get: a file that names anything else is refused, and nothing of it is
called. PyTorch Geometric is not needed.
"""

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .centering import centered
from .molecules import Molecules
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
        storage = torch.load(io.BytesIO(self.storage), map_location="cpu", weights_only=True)
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


def holds_lmdb(path: Path) -> bool:
    """Whether `path` is an LMDB file, or a folder of them."""
    return path.suffix == ".lmdb" or (path.is_dir() and any(path.glob("*.lmdb")))


def read_lmdb(path, dtype: torch.dtype = torch.float32, relaxations: bool = False) -> Molecules:
    """Read an LMDB of OC20, or all of a folder, into memory.

    A record has pos [N, 3], atomic_numbers [N], cell [1, 3, 3] and fixed [N], and, where they are known, y_relaxed and
    y_init (IS2RE: targets relaxed_energy and initial_energy) or y and force (S2EF: the target energy and forces), in Å
    and eV. Other entries, as tags, pos_relaxed and stored edges, are not used. Cells repeat in all directions.

    Args:
        path: a file, or a folder of files ``*.lmdb``.
        dtype: of positions and forces.
        relaxations: whether records with y_relaxed are expected.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the package lmdb is not installed; a file is damaged, holds no records, or names anything but data.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such data file")
    files = sorted(path.glob("*.lmdb")) if path.is_dir() else [path]
    records = [_arrays(file, number, record) for file in files for number, record in _records(file)]
    if not records:
        raise ValueError(f"{path}: expected records, got none")

    def common(name):
        return all(name in record for record in records)

    names = [name for name in (*RELAXATION_TARGETS, "energy") if common(name)]
    if relaxations and RELAXATION_TARGETS[0] not in names:
        raise ValueError(f"data.relaxations: expected y_relaxed in every record of {path}, got some without")

    def joined(name, to):
        return torch.from_numpy(np.concatenate([record[name] for record in records])).to(to) if common(name) else None

    n_atoms, cell = torch.tensor([len(record["z"]) for record in records]), joined("cell", torch.float64)
    return Molecules(
        n_atoms=n_atoms,
        z=joined("z", torch.int64),
        pos=centered(np.concatenate([record["pos"] for record in records]), n_atoms, cell, None, dtype),
        y=torch.tensor([[float(record[name]) for name in names] for record in records], dtype=torch.float64),
        names=tuple(names),
        units=("eV",) * len(names),
        forces=joined("forces", dtype),
        cell=cell.to(dtype),
        pbc=torch.ones(len(records), 3, dtype=torch.bool),
        fixed=joined("fixed", torch.bool),
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


def _arrays(file: Path, number: int, record: Any) -> dict[str, np.ndarray]:
    """The entries of a record that are used, by name."""
    try:
        fields = _fields(record)
        if missing := {"pos", "atomic_numbers", "cell"} - {key for key, value in fields.items() if value is not None}:
            raise ValueError(f"got none called {' or '.join(sorted(missing))}")
        given = [(key, *entry) for key, entry in _ENTRIES.items() if fields.get(key) is not None]
        return {name: _numbers(fields[key]).reshape(shape) for key, name, shape in given}
    except Exception as error:  # whatever a damaged storage or layout leads to
        expected = "expected pos [N, 3], atomic_numbers [N] and cell [1, 3, 3]"
        raise ValueError(f"{file}: record {number}: {expected}; {error}") from error


def _unpickled(file: Path, data: bytes) -> Any:
    try:
        return _Unpickler(io.BytesIO(data)).load()
    except Exception as error:  # pickle raises whatever the first byte that puzzles it leads to
        raise ValueError(f"{file}: expected an LMDB of pickled structures: {error}") from error


def _records(file: Path):
    """Number and object of every record of a file."""
    try:
        import lmdb
    except ModuleNotFoundError as error:
        raise ValueError(f"{file}: expected the package lmdb installed to read it ({error})") from error
    try:
        with lmdb.open(str(file), subdir=False, readonly=True, lock=False, readahead=False) as environment:
            with environment.begin() as transaction:
                length = transaction.get(b"length")
                count = environment.stat()["entries"] if length is None else int(_numbers(_unpickled(file, length)))
                for number in range(count):
                    value = transaction.get(str(number).encode())
                    if value is None:
                        raise ValueError(f"{file}: expected {count} records, got none with number {number}")
                    yield number, _unpickled(file, value)
    except lmdb.Error as error:
        raise ValueError(f"{file}: expected an LMDB of pickled structures: {error}") from error
