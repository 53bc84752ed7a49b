"""Molecules that stay in their files until a batch needs them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...nn.ranges import MAX_ATOMIC_NUMBER
from ..labels import missing_label
from ..molecules import Batch, Molecules, Origin
from ..reading import ReadOptions
from ..selection import Selection, selection
from ..targets import canonical_target
from .facts import LABEL, NO_FORCES, NO_STRESS, NO_VOLUME
from .index import Index, read_index
from .records import Records

PART = 2**16  # structures whose facts are in memory at a time


class Schema(NamedTuple):
    """What some structure of a data set has, and so every batch: targets with units, and forces, stress, ..."""

    units: dict[str, str | None]
    has: frozenset[str]


class Reader(Dataset):
    """Batches out of files. This alone goes to the processes that read, not what is known of all structures.

    Args:
        records: of the files. counts: structures in each.
        schema: of all. chosen: the labels of the batches; None: all. labels_missing: whether some are missing.
    """

    def __init__(self, records: Records, counts: Sequence[int], schema: Schema, chosen: Selection | None = None):
        self.records, self.schema, self.chosen = records, schema, chosen
        self.labels_missing = False
        self._ends = np.cumsum(counts)

    def read(self, indices: Tensor) -> Molecules:
        """The molecules `indices` [B], B > 0."""
        found, numbers = [], indices.tolist()
        files = np.searchsorted(self._ends, numbers, side="right")
        for file, number in zip(files.tolist(), numbers, strict=True):
            found += self.records.read(file, [number - (int(self._ends[file - 1]) if file else 0)])
        molecules = conformed(self.records.packed(found, None), self.schema)
        molecules = molecules if self.chosen is None else molecules.selected(self.chosen)
        molecules.labels_missing = self.labels_missing  # of all: batches are the same as those out of memory
        return molecules

    def __getitem__(self, indices: Tensor) -> Batch:
        return self.read(indices)[:]


class Guarded(Dataset):
    """A reader whose errors are results, so that they leave a process as they are."""

    def __init__(self, reader: Reader):
        self.reader = reader

    def __getitem__(self, indices: Tensor) -> Batch | Exception:
        try:
            return self.reader[indices]
        except (OSError, ValueError, TypeError) as error:
            return error


def conformed(molecules: Molecules, schema: Schema) -> Molecules:
    """A few molecules with all that others of the data set have: targets in one order, and labels that are NaN."""
    count, atoms, dtype = len(molecules), len(molecules.z), molecules.pos.dtype
    own = {canonical_target(name): column for column, name in enumerate(molecules.names)}
    y = torch.full((count, len(schema.units)), torch.nan, dtype=torch.float64)
    for column, name in enumerate(schema.units):
        if name in own:
            y[:, column] = molecules.y[:, own[name]]
    absent = {
        "forces": lambda: torch.full((atoms, 3), torch.nan, dtype=dtype),
        "stress": lambda: torch.full((count, 3, 3), torch.nan, dtype=dtype),
        "cell": lambda: torch.zeros(count, 3, 3, dtype=dtype),
        "fixed": lambda: torch.zeros(atoms, dtype=torch.bool),
    }
    added = {name: absent[name]() for name in schema.has if getattr(molecules, name) is None}
    if "cell" in added:
        added["pbc"] = torch.zeros(count, 3, dtype=torch.bool)
    return replace(molecules, y=y, names=tuple(schema.units), units=tuple(schema.units.values()), **added)


@dataclass(eq=False)
class StreamedMolecules:
    """M molecules of which facts are known, as their numbers of atoms; structures are read batch by batch.

    Training and evaluation take it in place of `Molecules`, whose attributes and methods of the same names it has.

    Attributes:
        reader: of the files. index: facts about all molecules.
        workers: processes that read for a loader; 0: the calling one.
        names, units, n_atoms, origin, vectors, notes, test: see `Molecules`.
        group: see `Molecules`.
    """

    reader: Reader
    index: Index
    workers: int
    origin: Origin
    group: Tensor | None = None
    test: Tensor | None = None
    names: tuple[str, ...] = ()
    units: tuple[str | None, ...] = ()
    has_forces: bool = False
    has_stress: bool = False
    factors: tuple[float, ...] = field(default=(), repr=False)

    @property
    def n_atoms(self) -> Tensor:
        """[M] int64, mapped from the disk."""
        return torch.from_numpy(self.index.columns["n_atoms"])

    @property
    def vectors(self) -> tuple[str, ...]:
        return self.index.vectors

    @property
    def notes(self) -> tuple[str, ...]:
        return self.index.notes

    def __len__(self) -> int:
        return len(self.index.columns["n_atoms"])

    def __getitem__(self, indices) -> Batch:
        """The batch of molecules `indices` ([B] int64, or a list, slice or int), read by the calling process."""
        if isinstance(indices, slice):
            indices = torch.arange(len(self))[indices]
        return self.reader[torch.as_tensor(indices, dtype=torch.int64).reshape(-1)]

    def loaded(self, indices: Tensor) -> Molecules:
        """The molecules `indices` [B] in memory."""
        return self.reader.read(indices)

    def name(self, molecule: int) -> str:
        return self.origin.name(molecule)

    def labels(self, indices: Tensor) -> Tensor:
        """The targets [B, T] float64 of the molecules `indices` [B], NaN where there is no label."""
        columns = [torch.from_numpy(self.index.columns[LABEL(name)])[indices] for name in self.names]
        y = torch.stack(columns, 1) if columns else torch.zeros(len(indices), 0, dtype=torch.float64)
        return y * torch.tensor(self.factors, dtype=torch.float64)

    def squared_forces(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Of the molecules `indices` [B] the sum of the squares of the forces, and over how many atoms: two [B]."""
        square = torch.from_numpy(self.index.columns["forces_square"])[indices] * self.factors[0] ** 2
        return square, torch.from_numpy(self.index.columns["free_atoms"])[indices]

    def composition(self, indices: Tensor) -> Tensor:
        """See `Molecules.composition`."""
        first, elements = self.index.columns["first_element"], self.index.columns["elements"]
        rows = indices.numpy()
        begin = first[rows]
        end = np.where(rows + 1 < len(first), first[np.minimum(rows + 1, len(first) - 1)], len(elements))
        structure = np.repeat(np.arange(len(rows)), end - begin)
        place = np.arange(len(structure)) - np.repeat(np.cumsum(end - begin) - end, end - begin)
        counts = torch.zeros(len(rows), MAX_ATOMIC_NUMBER + 1, dtype=torch.float64)
        atoms = torch.from_numpy(self.index.columns["atoms"][place]).double()
        counts[torch.from_numpy(structure), torch.from_numpy(elements[place]).long()] = atoms
        return counts

    def elements(self, indices: Tensor | None = None) -> list[int]:
        """See `Molecules.elements`."""
        if indices is None:
            return np.unique(self.index.columns["elements"]).tolist()
        found = torch.zeros(MAX_ATOMIC_NUMBER + 1, dtype=torch.bool)
        for part in indices.split(PART):
            found |= self.composition(part).any(0)
        return found.nonzero()[:, 0].tolist()

    def with_elements(self, numbers: Tensor) -> Tensor:
        """See `Molecules.with_elements`."""
        parts = torch.arange(len(self)).split(PART)
        return torch.cat([self.composition(part)[:, numbers].any(1) for part in parts])

    def _flagged(self, bit: int) -> Tensor:
        return torch.from_numpy(np.flatnonzero(self.index.columns["missing"] & bit))

    def missing(self, targets, forces: bool = False, stress: bool = False) -> dict[str, Tensor]:
        """See `Molecules.missing`."""
        columns = {
            name: torch.from_numpy(np.flatnonzero(np.isnan(self.index.columns[LABEL(name)])))
            for name in map(canonical_target, targets)
        }
        columns |= {"forces": self._flagged(NO_FORCES)} if forces else {}
        columns |= {"stress": self._flagged(NO_STRESS)} if stress else {}
        return {name: rows for name, rows in columns.items() if len(rows)}

    def without_volume(self) -> Tensor:
        """Numbers of the molecules without a cell that repeats and has a volume."""
        return self._flagged(NO_VOLUME)

    def choose(self, targets, units=None, forces=False, stress=False) -> "StreamedMolecules":
        """See `Molecules.choose`."""
        chosen = selection(self, targets, units, forces, stress)
        for name in chosen.names:
            y = self.index.columns[LABEL(name)]
            if np.isnan(y).all():
                raise ValueError(f"targets: expected some molecule with a label {name!r}, got none")
            if (infinite := np.isinf(y)).any():
                row = int(infinite.argmax())
                raise ValueError(f"{self.name(row)}: {name}: expected a finite label, got {y[row]}")
        schema = self.reader.schema
        if forces and self.missing((), True):  # atoms without a label are `fixed`
            schema = schema._replace(has=schema.has | {"fixed"})
        reader = Reader(self.reader.records, self.index.counts, schema, chosen)
        reader.labels_missing = bool(self.missing(chosen.names))
        return replace(
            self, reader=reader, names=chosen.names, units=chosen.units, has_forces=forces, has_stress=stress,
            factors=chosen.factors,
        )  # fmt: skip


def streamed(records: Records, source: str, options: ReadOptions, workers: int) -> StreamedMolecules:
    """The molecules of `records`, with all labels that `source` has. Raises as `read_index`, or like `read_molecules`
    for labels and units of `options` that are not there."""
    index = read_index(records, source, options, workers)
    names = tuple(index.units)
    for target, label in options.keys.items():
        there = target in index.has if target in ("forces", "stress") else canonical_target(target) in names
        if not there:
            raise ValueError(missing_label(f"data.keys.{target}", label, names, index.vectors))
    for name in options.file_units:
        if canonical_target(name) not in ("length", "forces", "stress", *names):
            known = ", ".join(["length", "forces", "stress", *names])
            raise ValueError(f"file_units.{name}: expected some of {known}, got {name!r}")
    group = None
    if records.grouped:
        group = torch.repeat_interleave(torch.arange(len(index.counts)), torch.tensor(index.counts))
    return StreamedMolecules(
        Reader(records, index.counts, Schema(index.units, index.has)),
        index,
        workers,
        Origin(tuple(map(str, records.files)), index.counts),
        group,
        names=names,
        units=tuple(index.units.values()),
        has_forces="forces" in index.has,
        has_stress="stress" in index.has,
        factors=(1.0,) * len(names),
    )
