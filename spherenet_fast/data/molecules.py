"""Molecules of any size in a few flat arrays, and batches cut from them with one gather."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .targets import canonical_target
from .units import conversion, is_energy, unit_name

MAX_ATOMIC_NUMBER = 94


class Batch:
    """Several molecules as one disconnected graph, in PyTorch Geometric's names.

    Attributes:
        z: [N] int64, pos: [N, 3] Å, batch: [N] int64 (molecule of every atom, ascending), num_graphs: int B.
        cell: [B, 3, 3] Å or None, pbc: [B, 3] bool or None.
        y: [B, T] float64 targets or None, forces: [N, 3] or None.
        fixed: [N] bool, atoms held in place, whose forces are nobody's business; None: no atom.
    """

    __slots__ = ("z", "pos", "batch", "num_graphs", "cell", "pbc", "y", "forces", "fixed")

    def __init__(self, z, pos, batch, num_graphs, cell=None, pbc=None, y=None, forces=None, fixed=None):
        self.z, self.pos, self.batch, self.num_graphs = z, pos, batch, num_graphs
        self.cell, self.pbc, self.y, self.forces, self.fixed = cell, pbc, y, forces, fixed

    def of_free_atoms(self, rows: Tensor) -> Tensor:
        """Rows [N, ...] of the atoms that are not fixed."""
        return rows if self.fixed is None else rows[~self.fixed]

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
        return out

    def to(self, device, non_blocking: bool = False) -> "Batch":
        """A copy on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """A copy in page-locked memory, which a GPU can fetch while the host goes on."""
        return self._map(Tensor.pin_memory)


@dataclass(eq=False)
class Molecules(torch.utils.data.Dataset):
    """M molecules (or frames), concatenated: molecule m owns the atoms ``offset[m]:offset[m + 1]``.

    Attributes:
        n_atoms: [M] int64.
        z: [ΣN] int64 atomic numbers, 1 to 94.
        pos: [ΣN, 3] float32 or float64, Å.
        y: [M, T] float64 targets, in `units`.
        names: T names of targets.
        units: T units, None where the file does not say.
        forces: [ΣN, 3] or None, in the unit of the target "energy" per Å.
        cell: [M, 3, 3] Å or None. pbc: [M, 3] bool or None.
        fixed: [ΣN] bool, atoms that were held in place (the lower layers of a slab), or None.
        test: indices of the test frames where the source fixes them (MD17's samples), else None.
        group: [M] int64, the relaxation that a frame is of: `random_split` parts no group. None: each stands alone.

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
        }
        for name, shape in expected.items():
            array = getattr(self, name)
            if array is not None and tuple(array.shape) != shape:
                raise ValueError(f"{name}: expected shape {list(shape)}, got {list(array.shape)}")
        if atoms and (int(self.z.min()) < 1 or int(self.z.max()) > MAX_ATOMIC_NUMBER):
            low, high = int(self.z.min()), int(self.z.max())
            raise ValueError(f"z: expected atomic numbers 1 to {MAX_ATOMIC_NUMBER}, got {low} to {high}")
        _require_finite("pos", self.pos, self.n_atoms)
        self.offset = torch.zeros(count + 1, dtype=torch.int64)
        torch.cumsum(self.n_atoms, 0, out=self.offset[1:])

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

        return Batch(
            self.z[atoms],
            self.pos[atoms],
            batch,
            len(indices),
            pick(self.cell, indices),
            pick(self.pbc, indices),
            self.y[indices],
            pick(self.forces, atoms),
            pick(self.fixed, atoms),
        )

    def choose(self, targets, units=None, forces=False) -> "Molecules":
        """The same molecules with the columns `targets` only, converted; forces follow the target "energy".

        Args:
            targets: names.
            units: {name: unit} to convert to; a target that is not named keeps its unit.
            forces: keep the forces.

        Raises:
            ValueError: a target does not exist (the message lists the names), a unit is unknown or does not fit,
                a label is not finite, or forces are wanted and there are none.
        """
        names = [canonical_target(name) for name in targets]
        own = {canonical_target(name): column for column, name in enumerate(self.names)}
        for name in names:
            if name not in own:
                raise ValueError(f"targets: expected some of {', '.join(own) or '(the data has none)'}, got {name!r}")
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
        _require_finite("y", y, None, names)
        return replace(
            self,
            y=y,
            names=tuple(names),
            units=tuple(chosen),
            forces=self._forces_in(names, chosen, factors) if forces else None,
        )

    def _forces_in(self, names, units, factors) -> Tensor:
        if self.forces is None:
            raise ValueError("forces: expected data with forces to train on them, got data without")
        if names != ["energy"]:
            raise ValueError(f"targets: expected ['energy'] alone when training on forces, got {names}")
        if units[0] is not None and not is_energy(units[0]):
            raise ValueError(f"units.energy: expected an energy unit, got {units[0]!r}")
        _require_finite("forces", self.forces, self.n_atoms)
        return self.forces * factors[0]


def _require_finite(name: str, array: Tensor, n_atoms: Tensor | None, columns=None) -> None:
    """ValueError that names the first molecule with a number that is not finite; `n_atoms` if rows are atoms."""
    if bool(torch.isfinite(array).all()):
        return
    row, column = (int(i) for i in (~torch.isfinite(array)).nonzero()[0])
    value = float(array[row, column])
    molecule = row if n_atoms is None else int(torch.searchsorted(n_atoms.cumsum(0), row, right=True))
    which = f"target {columns[column]!r}" if columns else name
    raise ValueError(f"{name}: expected finite numbers, got {value} for {which} of molecule {molecule}")
