"""Molecules of any size in a few flat arrays, and batches cut from them with one gather."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..nn.ranges import MAX_ATOMIC_NUMBER
from .labels import missing_label
from .targets import canonical_target
from .units import conversion, is_energy, unit_name


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
    """The files of M molecules, in order, and how many each holds."""

    files: tuple[str, ...]
    counts: tuple[int, ...]

    def name(self, molecule: int) -> str:
        """ "frame 3 of md.traj", from 0."""
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
        self._labels_missing = bool(self.y.isnan().any())

    def name(self, molecule: int) -> str:
        """What to call a molecule in a message: its frame and file, where they are known."""
        return f"molecule {molecule}" if self.origin is None else self.origin.name(molecule)

    def __len__(self) -> int:
        return len(self.n_atoms)

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
            ~y.isnan() if self._labels_missing else None,
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
        names = [canonical_target(name) for name in targets]
        own = {canonical_target(name): column for column, name in enumerate(self.names)}
        for name in names:
            if name not in own:
                without_forces = forces and self.forces is None
                raise ValueError(missing_label("targets", name, self.names, self.vectors, without_forces))
        if len(set(names)) != len(names):
            raise ValueError(f"targets: expected distinct names, got {', '.join(names)}")
        units = {canonical_target(name): unit for name, unit in (units or {}).items()}
        for name in units:
            if name not in names:
                raise ValueError(f"units: expected names among the targets {', '.join(names)}, got {name!r}")
        columns = [own[name] for name in names]
        factors, chosen = [], []
        for name, column in zip(names, columns, strict=True):
            given = self.units[column]
            wanted = units.get(name) or given
            if given is None and wanted is not None:
                raise ValueError(
                    f"file_units.{name}: expected the file's unit, to convert to {wanted!r}, got none "
                    f"(config key data.file_units.{name}, or evaluate --file-units {name}=UNIT)"
                )
            try:
                factors.append(1.0 if given is None else conversion(given, wanted))
                chosen.append(None if wanted is None else unit_name(wanted))
            except ValueError as error:
                raise ValueError(f"target {name!r}: {error}") from None
        y = self.y[:, columns] * torch.tensor(factors, dtype=torch.float64)
        for column, name in enumerate(names):
            if len(y) and y[:, column].isnan().all():
                raise ValueError(f"targets: expected some molecule with a label {name!r}, got none")
        if (infinite := y.isinf()).any():
            row, column = (int(i) for i in infinite.nonzero()[0])
            raise ValueError(f"{self.name(row)}: {names[column]}: expected a finite label, got {float(y[row, column])}")
        chosen_forces, fixed = self._forces_in(names, chosen, factors) if forces else (None, self.fixed)
        if stress and (self.stress is None or self.stress.isnan().all()):
            raise ValueError("stress: expected labels in the data, as loss.stress_weight is not 0, got none")
        if stress and (infinite := self.stress.isinf().flatten(1).any(1)).any():
            raise ValueError(f"{self.name(int(infinite.nonzero()[0]))}: stress: expected finite labels, got others")
        return replace(
            self, y=y, names=tuple(names), units=tuple(chosen), forces=chosen_forces, fixed=fixed,
            stress=self.stress * factors[0] if stress else None,
        )  # fmt: skip

    def _forces_in(self, names, units, factors) -> tuple[Tensor, Tensor | None]:
        """Forces in the unit of the energy, and the atoms whose forces do not count."""
        if self.forces is None or (len(self.forces) and self.forces.isnan().all()):
            raise ValueError(missing_label("forces", "forces", self.names, self.vectors))
        if names != ["energy"]:
            raise ValueError(f"targets: expected ['energy'] alone when training on forces, got {names}")
        if units[0] is not None and not is_energy(units[0]):
            raise ValueError(f"units.energy: expected an energy unit, got {units[0]!r}")
        if (infinite := self.forces.isinf().any(1)).any():
            atom = int(infinite.nonzero()[0])
            number = int(torch.searchsorted(self.offset, atom, right=True)) - 1
            raise ValueError(f"{self.name(number)}: forces: expected finite labels, got {self.forces[atom].tolist()}")
        absent = self.missing((), True)
        if not absent:
            return self.forces * factors[0], self.fixed
        atoms = self.atoms_of(absent["forces"])[0]
        fixed = torch.zeros(len(self.z), dtype=torch.bool) if self.fixed is None else self.fixed.clone()
        fixed[atoms] = True
        return (self.forces * factors[0]).index_fill(0, atoms, 0.0), fixed


def _require_finite(pos: Tensor, n_atoms: Tensor, name) -> None:
    """ValueError that names the first molecule with a coordinate that is not finite."""
    if bool(torch.isfinite(pos).all()):
        return
    row, column = (int(i) for i in (~torch.isfinite(pos)).nonzero()[0])
    molecule = int(torch.searchsorted(n_atoms.cumsum(0), row, right=True))
    raise ValueError(f"pos: expected finite numbers, got {float(pos[row, column])} for pos of {name(molecule)}")
