"""The LMDBs in which the Open Catalyst Project publishes OC20: pickled PyTorch Geometric data, one record a structure.

Unpickling can run any code, so what these files may name is limited to a dozen constructors of plain data: a file that
names anything else is refused, and nothing of it is called. PyTorch Geometric is not needed.
"""

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .molecules import Molecules
from .relaxations import RELAXATION_TARGETS


class _Record:
    """What a PyTorch Geometric object says of itself, without its class."""

    def __setstate__(self, state):
        self.__dict__.update(state)

    def fields(self) -> dict[str, Any]:
        """Its attributes, in the layout of PyTorch Geometric 2 (a store with a mapping) or 1 (attributes)."""
        store = self.__dict__.get("_store")
        return store.__dict__["_mapping"] if isinstance(store, _Record) else self.__dict__


class _Storage(bytes):
    """A serialised storage; read when it is needed, as most of a record is not."""


class _StoredTensor:
    """A tensor not read yet."""

    def __init__(self, storage: _Storage, *layout: Any):
        self.storage, self.layout = storage, layout

    def numpy(self) -> np.ndarray:
        storage = torch.load(io.BytesIO(self.storage), weights_only=True)
        return torch._utils._rebuild_tensor_v2(storage, *self.layout).numpy()


def _latin1(text: str, encoding: str) -> bytes:
    """How NumPy's pickles spell bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes encoded as {encoding}")
    return text.encode(encoding)


# The functions by which NumPy's pickles rebuild an array, a scalar, and an array from a buffer.
_NUMPY = {
    "multiarray._reconstruct": np.zeros(1).__reduce__()[0],
    "multiarray.scalar": np.float64(0).__reduce__()[0],
    "numeric._frombuffer": np.zeros(1).__reduce_ex__(5)[0],
}
_ADMITTED = {
    ("torch_geometric.data.data", "Data"): _Record,
    ("torch_geometric.data.data", "DataEdgeAttr"): _Record,
    ("torch_geometric.data.data", "DataTensorAttr"): _Record,
    ("torch_geometric.data.storage", "GlobalStorage"): _Record,
    ("torch._utils", "_rebuild_tensor_v2"): _StoredTensor,
    ("torch.storage", "_load_from_bytes"): _Storage,
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
}
for _core in ("numpy.core", "numpy._core"):  # before and after NumPy 2
    _ADMITTED |= {tuple(f"{_core}.{name}".rsplit(".", 1)): function for name, function in _NUMPY.items()}


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

    return Molecules(
        n_atoms=torch.tensor([len(record["z"]) for record in records]),
        z=joined("z", torch.int64),
        pos=joined("pos", dtype),
        y=torch.tensor([[float(record[name]) for name in names] for record in records], dtype=torch.float64),
        names=tuple(names),
        units=("eV",) * len(names),
        forces=joined("forces", dtype),
        cell=joined("cell", dtype),
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


def _arrays(file: Path, number: int, record: Any) -> dict[str, np.ndarray]:
    """The entries of a record that are used, by name."""
    fields = record.fields() if isinstance(record, _Record) else {}
    try:
        if missing := {"pos", "atomic_numbers", "cell"} - {key for key, value in fields.items() if value is not None}:
            raise ValueError(f"got none called {' or '.join(sorted(missing))}")
        found = {}
        for key, (name, shape) in _ENTRIES.items():
            value = fields.get(key)
            if value is not None:
                value = value.numpy() if isinstance(value, _StoredTensor) else np.asarray(value)
                found[name] = value.reshape(shape)
        return found
    except (ValueError, TypeError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        wanted = "expected pos [N, 3], atomic_numbers [N] and cell [1, 3, 3]"
        raise ValueError(f"{file}: record {number}: {wanted}; {error}") from error


def _records(file: Path):
    """Number and object of every record of a file."""
    try:
        import lmdb
    except ModuleNotFoundError as error:
        raise ValueError(f"{file}: expected the package lmdb installed to read it ({error})") from error
    try:
        with lmdb.open(
            str(file), subdir=False, readonly=True, lock=False, readahead=False, max_readers=1
        ) as environment:
            with environment.begin() as transaction:
                length = transaction.get(b"length")
                count = environment.stat()["entries"] if length is None else _Unpickler(io.BytesIO(length)).load()
                for number in range(count):
                    value = transaction.get(str(number).encode())
                    if value is None:
                        raise ValueError(f"{file}: expected {count} records, got none with number {number}")
                    yield number, _Unpickler(io.BytesIO(value)).load()
    except (lmdb.Error, pickle.UnpicklingError, EOFError, AttributeError, IndexError, TypeError) as error:
        raise ValueError(f"{file}: expected an LMDB of pickled structures: {error}") from error
