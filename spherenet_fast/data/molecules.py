"""Molecules of any size in a few flat arrays, and batches cut from them with one gather."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..graph.periodic import is_flat
from ..nn.ranges import MAX_ATOMIC_NUMBER
from .selection import Selection, selection
from .targets import canonical_target


class Batch:
    """Several molecules as one disconnected graph, in PyTorch Geometric's names.

    Attributes:
        z: [N] int64, pos: [N, 3] Å, batch: [N] int64 (molecule of every atom, ascending), num_graphs: int B.
        cell: [B, 3, 3] Å or None, pbc: [B, 3] bool or None.
        y: [B, T] float64 targets or None, forces: [N, 3] or None.
        fixed: [N] bool, atoms whose forces do not count: held in place, or without a label; None: no atom.
        known: [B, T] bool, the targets that have a label, NaN in y where not; None: all.
        stress: [B, 3, 3] or None; NaN where there is no label.
    """

    __slots__ = ("z", "pos", "batch", "num_graphs", "cell", "pbc", "y", "forces", "fixed", "known", "stress")

    def __init__(
        self, z, pos, batch, num_graphs, cell=None, pbc=None, y=None, forces=None, fixed=None, known=None, stress=None
    ):
        self.z, self.pos, self.batch, self.num_graphs = z, pos, batch, num_graphs
        self.cell, self.pbc, self.y, self.forces, self.fixed, self.known = cell, pbc, y, forces, fixed, known
        self.stress = stress

    def of_free_atoms(self, rows: Tensor) -> Tensor:
        """Rows [N, ...] of the atoms that are not fixed."""
        return rows if self.fixed is None else rows[~self.fixed]

    def of_known_targets(self, values: Tensor) -> Tensor:
        """Of values [B, T] those of targets that have a label: [B, T], or [n] where some have none."""
        return values if self.known is None else values[self.known]

    def _map(self, function) -> "Batch":
        values = {name: getattr(self, name) for name in self.__slots__}
        return Batch(**{k: function(v) if isinstance(v, Tensor) else v for k, v in values.items()})

    def mirrored(self, which: Tensor) -> "Batch":
        """A copy in which the molecules `which` [B] bool are their mirror images, x -> -x; targets are scalars."""
        sign = torch.ones(self.num_graphs, 3, dtype=self.pos.dtype, device=self.pos.device)
        sign[which, 0] = -1
        of_atom = sign[self.batch]
        out = self._map(lambda tensor: tensor)
        out.pos = self.pos * of_atom
        out.forces = None if self.forces is None else self.forces * of_atom
        out.cell = None if self.cell is None else self.cell * sign[:, None]
        out.stress = None if self.stress is None else self.stress * sign[:, None] * sign[:, :, None]
        return out

    def to(self, device, non_blocking: bool = False) -> "Batch":
        """A copy on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """A copy in page-locked memory, which a GPU can fetch while the host goes on."""
        return self._map(Tensor.pin_memory)


class Origin(NamedTuple):
    """The files that molecules are of, in order, and how many each holds; molecule 0 is number `first` of them."""

    files: tuple[str, ...]
    counts: tuple[int, ...]
    first: int = 0

    def name(self, molecule: int) -> str:
        """ "frame 3 of md.traj", from 0."""
        molecule += self.first
        for file, count in zip(self.files, self.counts, strict=True):
            if molecule < count:
                return f"frame {molecule} of {file}"
            molecule -= count
        raise IndexError(f"expected molecules 0 to {sum(self.counts) - 1}")


@dataclass(eq=False)
class Molecules(torch.utils.data.Dataset):
    """M molecules (or frames), concatenated: molecule m owns the atoms ``offset[m]:offset[m + 1]``.

    Attributes:
        n_atoms: [M] int64.
        z: [ΣN] int64 atomic numbers, 1 to 94.
        pos: [ΣN, 3] float32 or float64, Å.
        y: [M, T] float64 targets, in `units`; NaN: the molecule has no such label.
        names: T names of targets.
        units: T units, None where the file does not say.
        forces: [ΣN, 3] or None, in the unit of the target "energy" per Å; NaN on all atoms of a molecule without.
        cell: [M, 3, 3] Å or None. pbc: [M, 3] bool or None.
        fixed: [ΣN] bool, atoms that were held in place (the lower layers of a slab), or None.
        test: indices of the test frames where the source fixes them (MD17's samples), else None.
        group: [M] int64, the relaxation that a frame is of: `random_split` parts no group. None: each stands alone.
        origin: the files that the molecules are of; None: unknown.
        vectors: names of vectors on atoms in the source that are not read, but could be forces.
        notes: what was chosen or left out in reading, a sentence each.
        stress: [M, 3, 3] or None, in the unit of the target "energy" per Å^3, positive under tension; NaN where a
            molecule has none.

    Raises:
        TypeError: an array has the wrong dtype.
        ValueError: shapes disagree, an atomic number is outside 1 to 94, or a position is not finite.
    """

    n_atoms: Tensor
    z: Tensor
    pos: Tensor
    y: Tensor
    names: tuple[str, ...] = ()
    units: tuple[str | None, ...] = ()
    forces: Tensor | None = None
    cell: Tensor | None = None
    pbc: Tensor | None = None
    fixed: Tensor | None = None
    test: Tensor | None = None
    group: Tensor | None = None
    origin: Origin | None = None
    vectors: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    stress: Tensor | None = None

    def __post_init__(self):
        count, atoms = len(self.n_atoms), len(self.z)
        if not self.pos.dtype.is_floating_point:
            raise TypeError(f"pos: expected a floating dtype, got {self.pos.dtype}")
        if self.fixed is not None and self.fixed.dtype != torch.bool:
            raise TypeError(f"fixed: expected bool, got {self.fixed.dtype}")
        if self.group is not None and self.group.dtype != torch.int64:
            raise TypeError(f"group: expected int64, got {self.group.dtype}")
        if count and int(self.n_atoms.min()) < 1:
            raise ValueError(f"n_atoms: expected at least 1 atom per molecule, got {int(self.n_atoms.min())}")
        if count and int(self.n_atoms.max()) > atoms:  # before a sum that might overflow
            raise ValueError(f"n_atoms: expected at most {atoms} atoms, as in z, got {int(self.n_atoms.max())}")
        if int(self.n_atoms.sum()) != atoms:
            raise ValueError(f"z: expected {int(self.n_atoms.sum())} atoms (the sum of n_atoms), got {atoms}")
        expected = {
            "pos": (atoms, 3),
            "y": (count, len(self.names)),
            "forces": (atoms, 3),
            "cell": (count, 3, 3),
            "pbc": (count, 3),
            "fixed": (atoms,),
            "group": (count,),
            "stress": (count, 3, 3),
        }
        for name, shape in expected.items():
            array = getattr(self, name)
            if array is not None and tuple(array.shape) != shape:
                raise ValueError(f"{name}: expected shape {list(shape)}, got {list(array.shape)}")
        if atoms and (int(self.z.min()) < 1 or int(self.z.max()) > MAX_ATOMIC_NUMBER):
            low, high = int(self.z.min()), int(self.z.max())
            raise ValueError(f"z: expected atomic numbers 1 to {MAX_ATOMIC_NUMBER}, got {low} to {high}")
        _require_finite(self.pos, self.n_atoms, self.name)
        self.offset = torch.zeros(count + 1, dtype=torch.int64)
        torch.cumsum(self.n_atoms, 0, out=self.offset[1:])
        self.labels_missing = bool(self.y.isnan().any())

    def name(self, molecule: int) -> str:
        """What to call a molecule in a message: its frame and file, where they are known."""
        return f"molecule {molecule}" if self.origin is None else self.origin.name(molecule)

    @property
    def has_forces(self) -> bool:
        """Whether some molecule has forces."""
        return self.forces is not None and not (len(self.forces) and bool(self.forces.isnan().all()))

    @property
    def has_stress(self) -> bool:
        """Whether some molecule has a stress."""
        return self.stress is not None and not bool(self.stress.isnan().all())

    def __len__(self) -> int:
        return len(self.n_atoms)

    def labels(self, indices: Tensor) -> Tensor:
        """The targets [B, T] float64 of the molecules `indices` [B]; a copy."""
        return self.y[indices]

    def elements(self, indices: Tensor | None = None) -> list[int]:
        """The atomic numbers, ascending, that the molecules `indices` [B] have, or all of them."""
        return (self.z if indices is None else self.z[self.atoms_of(indices)[0]]).unique().tolist()

    def composition(self, indices: Tensor) -> Tensor:
        """How many atoms of each element the molecules `indices` [B] have: [B, 95] float64."""
        atoms, batch = self.atoms_of(indices)
        counts = torch.zeros(len(indices), MAX_ATOMIC_NUMBER + 1, dtype=torch.float64)
        counts.index_put_((batch, self.z[atoms]), torch.ones((), dtype=torch.float64), accumulate=True)
        return counts

    def with_elements(self, numbers: Tensor) -> Tensor:
        """[M] bool, the molecules with an atom of one of the atomic numbers [k]."""
        found = torch.zeros(len(self), dtype=torch.bool)
        found[torch.repeat_interleave(torch.arange(len(self)), self.n_atoms)[torch.isin(self.z, numbers)]] = True
        return found

    def __getitem__(self, indices) -> Batch:
        """The batch of molecules `indices` ([B] int64, or a list, slice or int)."""
        if isinstance(indices, slice):
            indices = torch.arange(len(self))[indices]
        return self.batch(torch.as_tensor(indices, dtype=torch.int64).reshape(-1))

    @classmethod
    def from_file(cls, path, **arrays) -> "Molecules":
        """Molecules of `arrays`, with `path` in the message of every error, a ValueError."""
        try:
            return cls(**arrays)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from None

    def atoms_of(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Atom numbers of the molecules `indices` [B], and which of the B molecules each belongs to: two [N] int64."""
        counts = self.n_atoms[indices]
        end = counts.cumsum(0)
        total = int(end[-1]) if len(end) else 0
        batch = torch.repeat_interleave(torch.arange(len(indices)), counts, output_size=total)
        return torch.arange(total) + (self.offset[indices] - end + counts)[batch], batch

    def batch(self, indices: Tensor) -> Batch:
        """Collate the molecules `indices` [B] int64 with one gather per array, no loop over molecules."""
        atoms, batch = self.atoms_of(indices)

        def pick(array, rows):
            return None if array is None else array[rows]

        y = self.y[indices]
        return Batch(
            self.z[atoms],
            self.pos[atoms],
            batch,
            len(indices),
            pick(self.cell, indices),
            pick(self.pbc, indices),
            y,
            pick(self.forces, atoms),
            pick(self.fixed, atoms),
            ~y.isnan() if self.labels_missing else None,
            pick(self.stress, indices),
        )

    def missing(self, targets, forces: bool = False, stress: bool = False) -> dict[str, Tensor]:
        """{name: [k] numbers of the molecules without that label}, of targets and, if asked, "forces" and "stress"."""
        columns = {name: self.y[:, list(self.names).index(name)].isnan() for name in map(canonical_target, targets)}
        if forces:
            atoms = self.forces.isnan().any(1)
            counts = torch.zeros(len(self), dtype=torch.int64)
            counts.index_add_(0, torch.repeat_interleave(torch.arange(len(self)), self.n_atoms), atoms.long())
            columns["forces"] = counts > 0
            partial = columns["forces"] & (counts < self.n_atoms)
            if partial.any():
                first = int(partial.nonzero()[0])
                raise ValueError(
                    f"{self.name(first)}: forces: expected them on all atoms or none, got NaN on {int(counts[first])} "
                    f"of {int(self.n_atoms[first])}"
                )
        if stress:
            columns["stress"] = self.stress.isnan().flatten(1).any(1)
        return {name: rows.nonzero()[:, 0] for name, rows in columns.items() if rows.any()}

    def without_volume(self) -> Tensor:
        """[k] numbers of the molecules without a cell that repeats and has a volume."""
        if self.cell is None:
            return torch.arange(len(self))
        return (~self.pbc.any(1) | is_flat(self.cell)).nonzero()[:, 0]

    def choose(self, targets, units=None, forces=False, stress=False) -> "Molecules":
        """The same molecules with the columns `targets` only, converted; forces and stress follow the target "energy".

        The atoms of a molecule without forces become `fixed`, with forces of zero, so that they do not count.

        Args:
            targets: names.
            units: {name: unit} to convert to; a target that is not named keeps its unit.
            forces: keep the forces. stress: keep the stress, with the forces.

        Raises:
            ValueError: a target does not exist (the message lists the names), a unit is unknown or does not fit,
                a label is infinite or on some atoms only, or forces or stress are wanted and there are none.
        """
        chosen = selection(self, targets, units, forces, stress)
        y = self.y[:, list(chosen.columns)]
        for column, name in enumerate(chosen.names):
            if len(y) and y[:, column].isnan().all():
                raise ValueError(f"targets: expected some molecule with a label {name!r}, got none")
        if (infinite := y.isinf()).any():
            row, column = (int(i) for i in infinite.nonzero()[0])
            label = chosen.names[column]
            raise ValueError(f"{self.name(row)}: {label}: expected a finite label, got {float(y[row, column])}")
        if stress and (infinite := self.stress.isinf().flatten(1).any(1)).any():
            raise ValueError(f"{self.name(int(infinite.nonzero()[0]))}: stress: expected finite labels, got others")
        return self.selected(chosen)

    def selected(self, chosen: Selection) -> "Molecules":
        """`choose` by a selection, without a look at whether there is any label. Raises as `forces_for_loss`."""
        y = self.y[:, list(chosen.columns)] * torch.tensor(chosen.factors, dtype=torch.float64)
        forces, fixed = self.forces_for_loss(chosen.factors[0]) if chosen.forces else (None, self.fixed)
        stress = self.stress * chosen.factors[0] if chosen.stress else None
        return replace(self, y=y, names=chosen.names, units=chosen.units, forces=forces, fixed=fixed, stress=stress)

    def forces_for_loss(self, factor: float) -> tuple[Tensor, Tensor | None]:
        """The forces [ΣN, 3] times `factor`, 0 where there is no label, and the atoms [ΣN] whose forces do not count.

        Raises ValueError for a force that is infinite, or is there on some atoms of a molecule only.
        """
        if (infinite := self.forces.isinf().any(1)).any():
            atom = int(infinite.nonzero()[0])
            number = int(torch.searchsorted(self.offset, atom, right=True)) - 1
            raise ValueError(f"{self.name(number)}: forces: expected finite labels, got {self.forces[atom].tolist()}")
        absent = self.missing((), True)
        if not absent:
            return self.forces * factor, self.fixed
        atoms = self.atoms_of(absent["forces"])[0]
        fixed = torch.zeros(len(self.z), dtype=torch.bool) if self.fixed is None else self.fixed.clone()
        fixed[atoms] = True
        return (self.forces * factor).index_fill(0, atoms, 0.0), fixed


def _require_finite(pos: Tensor, n_atoms: Tensor, name) -> None:
    """ValueError that names the first molecule with a coordinate that is not finite."""
    if bool(torch.isfinite(pos).all()):
        return
    row, column = (int(i) for i in (~torch.isfinite(pos)).nonzero()[0])
    molecule = int(torch.searchsorted(n_atoms.cumsum(0), row, right=True))
    raise ValueError(f"pos: expected finite numbers, got {float(pos[row, column])} for pos of {name(molecule)}")
