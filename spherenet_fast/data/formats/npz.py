"""Readers for the layouts of NumPy archives in use for molecules.

* packed: ``n_atoms [M]``, ``z [ΣN]``, ``pos [ΣN, 3]``, with ``y [M, T]`` and ``target_names [T]``, or any number of
  one-dimensional label arrays ``[M]`` under their own names; optional ``forces [ΣN, 3]``, ``fixed [ΣN]``.
* relaxations: see `relaxations`.
* frames of one molecule: ``z [N]``, ``pos [F, N, 3]``, ``energy [F]``, ``forces [F, N, 3]``; the names of sGDML's and
  MD17's files (``R E F z``) and of rMD17's (``coords energies forces nuclear_charges``) are understood too. Optional
  ``fixed [N]``.
* frames already divided: the same with ``train_`` and ``test_`` before every name but ``z`` and ``fixed``.

Cells: ``cell`` or ``lattice``, [3, 3] for all structures or one for each, whose rows are the vectors; ``pbc``, one
truth value, [3], or [3] for each. Without ``pbc`` structures repeat along the vectors that are not zero.

Units: ``energy_unit`` or ``e_unit``, of QM9's energies, of labels called E or with "energy" in their names, and of
those that the user calls an energy; ``target_units [T]``; ``length_unit`` or ``r_unit``, of positions, cells and the
lengths in the forces' unit; ``forces_unit`` or ``f_unit``, as eV/Ang, where that is another one. Without them lengths
are in Å, MD17's energies in kcal/mol and QM9's targets in the units of its paper; other labels have no unit.

Arrays that are not mentioned here are named in a warning, unless they tell of the data set alone.
"""

from dataclasses import replace

import numpy as np
import torch

from ..centering import centered
from ..file_units import in_stated_units
from ..molecules import Molecules
from ..reading import ReadOptions, as_stated
from ..targets import QM9_TARGETS, canonical_target, is_total_energy
from ..units import force_units, is_energy, unit_name
from .archives import Archive
from .relaxations import packed_relaxations

MD17_NAMES = {"R": "pos", "E": "energy", "F": "forces", "coords": "pos", "energies": "energy", "nuclear_charges": "z"}
_PACKED = ("n_atoms", "z", "pos", "forces", "fixed", "pbc", "id")  # no labels, whatever their shapes are
_RMD17_ORIGIN = ("old_indices", "old_energies", "old_forces")  # the frames' numbers and labels in MD17

# What a unit is of -> the arrays that state it, and the table's spelling of what they say.
_UNIT_ARRAYS = {
    "energy": (("energy_unit", "e_unit"), lambda unit: unit_name(unit, "energy")),
    "length": (("length_unit", "r_unit"), lambda unit: unit_name(unit, "length")),
    "forces": (("forces_unit", "f_unit"), lambda unit: "/".join(force_units(unit))),
}


def read_npz(
    path, labels: str = "original", dtype: torch.dtype = torch.float32, relaxations: bool = False
) -> Molecules:
    """Read an archive in one of the layouts above.

    Args:
        path: the file.
        labels: "original" or "revised" (the arrays ``*_energy_revised``, ``*_forces_revised`` of divided frames).
        dtype: of positions and forces.
        relaxations: every relaxation is one structure, the first, with the energy of the last; only in that layout.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty, truncated or no archive, has none of the layouts, or no relaxations; an array is
            damaged, of another shape or not of numbers; a unit is unknown.
    """
    molecules, units = read_stored(path, labels, dtype, relaxations)
    return in_stated_units(molecules, units)


def holds(source: str) -> bool:
    return source.endswith(".npz")


def read_source(source: str, options: ReadOptions) -> Molecules:
    corrected = {options.keys.get(name, name) for name in options.file_units}
    energies = {label for name, label in options.keys.items() if is_total_energy(name, None)}
    molecules, units = read_stored(source, options.labels, options.dtype, options.relaxations, corrected, energies)
    return as_stated(molecules, options, units)


def read_stored(path, labels, dtype, relaxations, corrected=(), energies=()) -> tuple[Molecules, dict[str, str]]:
    """As `read_npz`, with lengths and forces as they are stored, and their units for `in_stated_units`.

    What the file says of the units of `corrected`, some of "energy", "length" and "forces", is not listened to.
    `energies` are labels that are energies, whatever their names.
    """
    with Archive(path) as archive:
        units = stated_units(archive, corrected)
        energy_unit = units.pop("energy", None)
        if "pos_initial" in archive:
            molecules = packed_relaxations(archive, dtype, relaxations, energy_unit or "eV")
        elif relaxations:
            raise ValueError(f"data.relaxations: expected an array pos_initial in {path}, got {', '.join(archive)}")
        elif "n_atoms" in archive:
            molecules = packed_molecules(archive, dtype, energy_unit, energies)
        elif "train_pos" in archive:
            prefixes = ["train_"] + ["test_"] * ("test_pos" in archive)
            molecules = _frames(archive, dtype, prefixes, "_revised" * (labels == "revised"), energy_unit or "kcal/mol")
        else:
            notes = ()
            if archive.rename(MD17_NAMES):
                if energy_unit is None and "energy" not in corrected:
                    notes = ("energy: in kcal/mol, as in MD17's files, whose names the arrays have",)
                energy_unit = energy_unit or "kcal/mol"
                archive.understood(*_RMD17_ORIGIN)
            molecules = replace(_frames(archive, dtype, [""], "", energy_unit), notes=notes)
        archive.warn_of_unread()
    return molecules, units


def stated_units(archive: Archive, corrected) -> dict[str, str]:
    """{"energy", "length", "forces": unit} as far as the archive states them and they are not among `corrected`."""
    units = {}
    for key, (names, spelling) in _UNIT_ARRAYS.items():
        name = archive.first(*names)
        if name is None:
            continue
        texts = archive.texts(name)
        if key in corrected or texts == [""]:
            continue
        if len(texts) != 1:
            raise archive.error(name, f"expected one unit, got {len(texts)}")
        try:
            units[key] = spelling(texts[0])
        except ValueError as error:
            raise archive.error(name, str(error).removeprefix("unit: ")) from None
    return units


def _tensor(array: np.ndarray | None, dtype: torch.dtype) -> torch.Tensor | None:
    return None if array is None else torch.from_numpy(array).to(dtype)


def _cells(archive: Archive, count: int, prefix: str = "") -> tuple[np.ndarray | None, np.ndarray | None]:
    """cell [count, 3, 3] and pbc [count, 3] of so many structures, or None twice where nothing repeats."""
    name = archive.first(prefix + "cell", prefix + "lattice", "cell", "lattice")
    pbc_name = archive.first(prefix + "pbc", "pbc")
    pbc = None if pbc_name is None else archive.mask(pbc_name)
    if pbc is not None and pbc.shape not in ((), (3,), (count, 3)):
        raise archive.error(pbc_name, f"expected shape [], [3] or [{count}, 3], got {list(pbc.shape)}")
    if name is None:
        if pbc is not None and pbc.any():
            raise archive.error(pbc_name, "expected an array cell with it, got none")
        return None, None
    cell = archive.numbers(name)
    if cell.shape not in ((3, 3), (count, 3, 3)):
        raise archive.error(name, f"expected shape [3, 3] or [{count}, 3, 3], got {list(cell.shape)}")
    cell = np.broadcast_to(cell, (count, 3, 3)).copy()
    pbc = (cell != 0).any(-1) if pbc is None else np.broadcast_to(pbc, (count, 3)).copy()
    return (cell, pbc) if pbc.any() else (None, None)


def _frames(archive: Archive, dtype: torch.dtype, prefixes: list[str], suffix: str, unit: str | None) -> Molecules:
    """Frames of one molecule, in one part for every prefix; the second part is for tests. `unit` is the energy's."""
    needed = ["z", *(prefix + "pos" for prefix in prefixes)]
    if not all(name in archive for name in needed):
        raise ValueError(
            f"{archive.path}: expected arrays n_atoms, z, pos or train_pos, z or R, E, F, z; got {', '.join(archive)}"
        )
    stored = {}  # by suffix, the labels that all parts have
    for ending in ("", "_revised"):
        stored[ending] = [n for n in ("energy", "forces") if all(p + n + ending in archive for p in prefixes)]
        archive.understood(*(prefix + name + ending for name in stored[ending] for prefix in prefixes))
    if suffix and not stored[suffix]:
        raise ValueError(
            f"data.labels: {archive.path} has no revised labels ({prefixes[0]}energy{suffix}); got {', '.join(archive)}"
        )
    z = archive.whole("z", "N")
    parts = {name: [] for name in ("pos", "energy", "forces", "cell", "pbc")}
    for prefix in prefixes:
        pos = archive.numbers(prefix + "pos", "F", len(z), 3)
        parts["pos"].append(pos)
        for name in stored[suffix]:
            array = archive.numbers(prefix + name + suffix)
            if array.shape != pos.shape if name == "forces" else array.size != len(pos):
                text = f"expected one entry per frame of pos {list(pos.shape)}, got {list(array.shape)}"
                raise archive.error(prefix + name + suffix, text)
            parts[name].append(array.reshape(-1, 1) if name == "energy" else array)
        for name, array in zip(("cell", "pbc"), _cells(archive, len(pos), prefix)):
            parts[name] += [] if array is None else [array]
    if 0 < len(parts["cell"]) < len(prefixes):
        raise ValueError(f"{archive.path}: expected cells for all of {', '.join(prefixes)}, got some without")
    pos, energy, forces, cell, pbc = (np.concatenate(part) if part else None for part in parts.values())
    fixed = np.tile(archive.mask("fixed", len(z)), len(pos)) if "fixed" in archive else None
    train = len(parts["pos"][0])
    names = () if energy is None else ("energy",)
    n_atoms = torch.full((len(pos),), len(z), dtype=torch.int64)
    return Molecules.from_file(
        archive.path,
        n_atoms=n_atoms,
        z=torch.from_numpy(z).repeat(len(pos)),
        pos=centered(pos.reshape(-1, 3), n_atoms, cell, pbc, dtype),
        y=_tensor(np.zeros((len(pos), 0)) if energy is None else energy, torch.float64),
        names=names,
        units=tuple(unit for _ in names),
        forces=None if forces is None else _tensor(forces.reshape(-1, 3), dtype),
        cell=_tensor(cell, dtype),
        pbc=_tensor(pbc, torch.bool),
        fixed=_tensor(fixed, torch.bool),
        test=torch.arange(train, len(pos)) if len(pos) > train else None,
    )


def packed_molecules(archive: Archive, dtype: torch.dtype, unit: str | None, energies) -> Molecules:
    """Molecules one after the other; `unit` is that of the energy where the archive states it."""
    if missing := {"z", "pos"} - set(archive):
        text = f"expected arrays n_atoms, z and pos, got none called {' or '.join(sorted(missing))}"
        raise ValueError(f"{archive.path}: {text}")
    n_atoms, z = archive.whole("n_atoms", "M"), archive.whole("z", "ΣN")
    count, atoms = len(n_atoms), len(z)
    names, columns, units = [], [], []

    def unit_of(name, default=None):
        info = QM9_TARGETS.get(canonical_target(name))
        named = "energy" in name.lower() or MD17_NAMES.get(name) == "energy" or name in energies
        return unit if unit and (named or (info and is_energy(info.unit))) else default

    if "y" in archive and "target_names" in archive:
        names = [canonical_target(name) for name in archive.texts("target_names")]
        columns = [archive.numbers("y", count, len(names))]
        if "target_units" in archive:
            units = archive.texts("target_units")
        else:
            units = [unit_of(name, QM9_TARGETS[name].unit if name in QM9_TARGETS else None) for name in names]
        if len(units) != len(names):
            raise archive.error("target_units", f"expected {len(names)} units, got {len(units)}")
    for name in archive:
        shape, kind = archive.header(name)
        if name not in _PACKED and shape == (count,) and kind.kind in "fiu":
            names.append(name)
            columns.append(archive.numbers(name)[:, None])
            units.append(unit_of(name))
    cell, pbc = _cells(archive, count)
    y = np.concatenate(columns, axis=1) if columns else np.zeros((count, 0))
    n_atoms = torch.from_numpy(n_atoms)
    return Molecules.from_file(
        archive.path,
        n_atoms=n_atoms,
        z=torch.from_numpy(z),
        pos=centered(archive.numbers("pos", atoms, 3), n_atoms, cell, pbc, dtype),
        y=_tensor(y, torch.float64),
        names=tuple(names),
        units=tuple(units),
        forces=_tensor(archive.numbers("forces", atoms, 3), dtype) if "forces" in archive else None,
        cell=_tensor(cell, dtype),
        pbc=_tensor(pbc, torch.bool),
        fixed=_tensor(archive.mask("fixed", atoms), torch.bool) if "fixed" in archive else None,
    )
