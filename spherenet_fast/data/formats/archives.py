"""Arrays of NumPy archives (.npz), read one by one: no pickles, no sizes that the file does not bear out."""

import math
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

# What tells of a data set without being a label: origins, statistics (sGDML's), numbers and names of structures.
_DESCRIPTIONS = re.compile(r"[EF]_(min|max|mean|var)|type|name|theory|md5|code_version|id|sid|fid|label")

_DEFLATE_RATIO = 1032  # the most that deflate can compress

_READ_HEADER = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class Archive:
    """An open .npz file, which remembers what has been read of it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is empty, truncated or no archive. The methods that read raise it for an array that is damaged,
            that states another size than it has, or that is of another shape or kind than expected; the message names
            the file and the array.
    """

    def __init__(self, path):
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"{path}: no such data file")
        try:
            self._zip = zipfile.ZipFile(self.path)
        except Exception as error:  # zipfile raises whatever the first field that puzzles it leads to
            raise ValueError(
                f"{path}: expected a NumPy archive (.npz); it is empty, truncated or no archive ({error})"
            ) from error
        self._members = {name.removesuffix(".npy"): name for name in self._zip.namelist()}
        self._used: set[str] = set()

    @staticmethod
    def is_compressed(path) -> bool:
        """Whether an array of the archive can only be read from its beginning. Raises as the constructor."""
        with Archive(path) as archive:
            infos = archive._zip.infolist()
        return any(info.compress_type != zipfile.ZIP_STORED for info in infos)

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_) -> None:
        self._zip.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def first(self, *names: str) -> str | None:
        """The first of `names` that is there."""
        return next((name for name in names if name in self), None)

    def rename(self, names: dict[str, str]) -> bool:
        """Give arrays other names, {in the file: here}, unless an array has the name itself; whether there were any."""
        found = [name for name, here in names.items() if name in self and here not in self]
        for name in found:
            self._members[names[name]] = self._members.pop(name)
        return bool(found)

    def understood(self, *names: str) -> None:
        """Count `names` as read."""
        self._used.update(names)

    def warn_of_unread(self) -> None:
        """One warning that names the arrays which have not been read, but for descriptions."""
        unread = [name for name in self if name not in self._used and not _DESCRIPTIONS.fullmatch(name)]
        if unread:
            named = ", ".join(map(self._in_file, unread))
            warnings.warn(f"{self.path}: not used, as they are not understood: arrays {named}", stacklevel=2)

    def error(self, name: str, text: str) -> ValueError:
        """An error of the array `name`, for the caller to raise."""
        return ValueError(f"{self.path}: {self._in_file(name)}: {text}")

    def header(self, name: str) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and dtype of an array, which is not read."""
        return self._guarded(name, self._header)

    def place(self, name: str) -> tuple[int, tuple[int, ...], np.dtype]:
        """Where the numbers of an array begin in the file, its shape and its dtype; of one that is not compressed."""
        return self._guarded(name, self._place)

    def array(self, name: str) -> np.ndarray:
        """An array of any kind but objects."""
        return self._guarded(name, self._read)

    def numbers(self, name: str, *shape: int | str) -> np.ndarray:
        """An array of numbers of at most 64 bits, in the byte order of the machine.

        Args:
            shape: the sizes expected, with letters where any size will do; nothing: any shape.
        """
        dtype = self._checked_header(name, shape)
        if dtype.kind not in "iuf" or dtype.itemsize > 8:
            raise self.error(name, f"expected numbers of at most 64 bits, got {_kind(dtype)}")
        return self._guarded(name, self._read).astype(dtype.newbyteorder("="), copy=False)

    def whole(self, name: str, *shape: int | str) -> np.ndarray:
        """An array of whole numbers, in any dtype of `numbers`, as int64."""
        array = self.numbers(name, *shape)
        try:
            return whole_numbers(array)
        except ValueError as error:
            raise self.error(name, str(error)) from None

    def mask(self, name: str, *shape: int | str) -> np.ndarray:
        """An array of bool, or of zeros and ones, as bool."""
        if self._checked_header(name, shape).kind == "b":  # a byte may be neither 0 nor 1
            array = self._guarded(name, self._read).view(np.uint8)
        else:
            array = self.numbers(name)
        try:
            return truth_values(array)
        except ValueError as error:
            raise self.error(name, str(error)) from None

    def texts(self, name: str) -> list[str]:
        """A text or an array of texts, as a list."""
        shape, dtype = self.header(name)
        if dtype.kind not in "US":
            raise self.error(name, f"expected text, got {_kind(dtype)}")
        items = self._guarded(name, lambda name: self._read(name).ravel().tolist())
        return self._guarded(name, lambda _: [item.decode() if isinstance(item, bytes) else item for item in items])

    def _in_file(self, name: str) -> str:
        return self._members[name].removesuffix(".npy")

    def _guarded(self, name: str, read: Callable[[str], Any]) -> Any:
        try:
            return read(name)
        except Exception as error:  # zipfile and NumPy raise whatever the first byte that puzzles them leads to
            reason = " ".join(str(error).split()) or type(error).__name__
            text = f"expected an array as NumPy saves it, got a damaged one ({reason})"
            if isinstance(error, MemoryError):
                text = f"expected an array that fits into memory, got a larger one ({reason})"
            raise self.error(name, text) from error

    def _header(self, name: str) -> tuple[tuple[int, ...], np.dtype]:
        info = self._zip.getinfo(self._members[name])
        with self._zip.open(info) as file:
            version = np.lib.format.read_magic(file)
            if version not in _READ_HEADER:
                raise ValueError(f"NumPy's format {version}")
            shape, _, dtype = _READ_HEADER[version](file)
            start = file.tell()
        if dtype.hasobject:  # a pickle, of any size
            return shape, dtype
        packed = min(info.compress_size, self.path.stat().st_size)
        present = min(info.file_size, packed if info.compress_type == zipfile.ZIP_STORED else packed * _DEFLATE_RATIO)
        stated = start + math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or stated != present:
            raise ValueError(f"its header states {dtype} {list(shape)}, {stated} bytes; there are {present}")
        return shape, dtype

    def _place(self, name: str) -> tuple[int, tuple[int, ...], np.dtype]:
        shape, dtype = self._header(name)
        info = self._zip.getinfo(self._members[name])
        with open(self._zip.filename, "rb") as file:
            file.seek(info.header_offset)
            local = file.read(30)  # of the zip: its last two numbers are the sizes of what follows it
            file.seek(int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little"), os.SEEK_CUR)
            if local[:4] != b"PK\x03\x04":
                raise ValueError("no array where the archive's table has one")
            _, by_columns, _ = _READ_HEADER[np.lib.format.read_magic(file)](file)
            if by_columns and len(shape) > 1:
                raise ValueError("numbers by columns, expected them by rows (numpy.ascontiguousarray)")
            return file.tell(), shape, dtype

    def _checked_header(self, name: str, expected: tuple[int | str, ...]) -> np.dtype:
        shape, dtype = self.header(name)
        fits = len(shape) == len(expected) and all(
            isinstance(wanted, str) or size == wanted for size, wanted in zip(shape, expected)
        )
        if expected and not fits:
            raise self.error(name, f"expected shape [{', '.join(map(str, expected))}], got {list(shape)}")
        return dtype

    def _read(self, name: str) -> np.ndarray:
        self._used.add(name)
        with self._zip.open(self._members[name]) as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
            file.read(1)  # at the end the checksum is compared
        return array


def _kind(dtype: np.dtype) -> str:
    names = {"U": "text", "S": "text", "O": "objects", "b": "truth values"}
    return f"{names[dtype.kind]} ({dtype})" if dtype.kind in names else str(dtype)


def whole_numbers(array: np.ndarray) -> np.ndarray:
    """Numbers of any integer or floating dtype as int64. ValueError for the first that is not whole or too large."""
    if array.dtype.kind == "f":
        good = np.isfinite(array) & (array == np.round(array)) & (np.abs(array) < 2.0**63)
    else:
        good = array <= np.iinfo(np.int64).max
    if not good.all():
        place = np.argwhere(~good)[0].tolist()
        raise ValueError(f"expected whole numbers, got {array[tuple(place)]} at {place}")
    return array.astype(np.int64)


def truth_values(array: np.ndarray) -> np.ndarray:
    """Zeros and ones of any dtype as bool. ValueError for the first that is neither."""
    bad = (array != 0) & (array != 1)
    if bad.any():
        place = np.argwhere(bad)[0].tolist()
        raise ValueError(f"expected false or true, 0 or 1, got {array[tuple(place)]} at {place}")
    return array != 0
