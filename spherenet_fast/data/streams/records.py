"""What a format offers so that single structures can be read out of its files, by any number of processes."""

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from ..molecules import Molecules, Origin
from ..reading import ReadOptions
from ..targets import canonical_target

MOST_OPEN = 64  # files of a process; systems allow 1024, data sets have thousands
_NO_TARGETS = ("length", "forces", "stress")  # of file_units and keys


class Records(Protocol):
    """Files whose structures are read one by one. It has no open file before the first read, so it can be sent to a
    process or inherited by one.

    Attributes:
        files: in order.
        grouped: whether the structures of a file belong together (`Molecules.group`).
    """

    files: Sequence[Path]
    grouped: bool

    def prepare(self, folder: Path) -> None:
        """Called once, before all else, with a folder that stays: what cannot be read piece by piece is unpacked."""

    def count(self, file: int) -> int:
        """How many structures a file has."""

    def read(self, file: int, numbers: Sequence[int]) -> list[Any]:
        """Some of them, in that order, for `packed`."""

    def packed(self, records: list[Any], origin: Origin | None) -> Molecules:
        """What `read` returned, of any files, one after the other, as `read_source` would have it."""


class Opened:
    """Files that stay open for the next read, at most MOST_OPEN of them, each process its own.

    open_file: of a number, gives an object with a method `close`.
    """

    def __init__(self, open_file: Callable[[int], Any]):
        self._open_file = open_file
        self._process, self._files = 0, OrderedDict()

    def __getstate__(self):
        return self.__dict__ | {"_process": 0, "_files": OrderedDict()}

    def __getitem__(self, file: int) -> Any:
        if self._process != os.getpid():  # what a parent process has opened stays its own
            self._process, self._files = os.getpid(), OrderedDict()
        if file not in self._files:
            self._files[file] = self._open_file(file)
            if len(self._files) > MOST_OPEN:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(file)
        return self._files[file]


def applicable(options: ReadOptions, names: Sequence[str]) -> ReadOptions:
    """`options` without the keys and units of labels that none of a few structures, with the labels `names`, has."""
    known = {canonical_target(name) for name in names}
    keys = {name: label for name, label in options.keys.items() if canonical_target(label) in known}
    known |= {canonical_target(name) for name in keys}
    units = {
        name: unit
        for name, unit in options.file_units.items()
        if name in _NO_TARGETS or canonical_target(name) in known
    }
    return replace(options, keys=keys, file_units=units)
