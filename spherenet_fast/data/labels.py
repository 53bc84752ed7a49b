"""Labels of ASE's structures: which of the numbers that a file holds are the energy, the forces, other targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .targets import QM9_TARGETS, canonical_target

if TYPE_CHECKING:
    from ase import Atoms

QM9_MARK = "gdb"  # begins the comment of every molecule in QM9's own files


class Labels(NamedTuple):
    """Labels of M structures with ΣN atoms; NaN where a structure has none.

    Attributes:
        columns: {target: [M] float64}.
        units: {target: unit}, of those that have a known one.
        forces: [ΣN, 3] float64, or None where no structure has any.
        stress: [M, 3, 3] float64, or None where no structure has any.
        vectors: names of vectors on atoms that could be forces.
        notes: what was chosen where there was a choice, a sentence each.
    """

    columns: dict[str, np.ndarray]
    units: dict[str, str]
    forces: np.ndarray | None
    stress: np.ndarray | None
    vectors: tuple[str, ...]
    notes: tuple[str, ...]


def parse_keys(given: list[str] | None) -> dict[str, str] | None:
    """["energy=REF_energy,forces=REF_forces", ...] as {name here: name in the file}; ValueError for anything else."""
    if not given:
        return None
    pairs = [part.partition("=") for part in ",".join(given).split(",")]
    keys = {name.strip(): label.strip() for name, _, label in pairs}
    if not all(name and label for name, label in keys.items()) or len(keys) != len(pairs):
        raise ValueError(
            f"--keys: expected NAME=LABEL,... as energy=REF_energy,forces=REF_forces, got {' '.join(given)!r}"
        )
    return keys


def find_labels(
    structures: list[Atoms],
    keys: dict[str, str] | None = None,
    forces: bool = False,
    name="structure {}".format,
    partial: bool = False,
) -> Labels:
    """The labels of `structures`.

    The energy is the result "energy" of a calculator, in eV. Where `forces` are wanted it is "free_energy" if there is
    one, whose derivatives forces are; and where there is no other. Every number in ``atoms.info`` is a target, too.
    Stress is a result, or in ``atoms.info``: [6] as ASE has it (xx, yy, zz, yz, xz, xy), [9] or [3, 3], in eV/Å^3, and
    positive under tension.

    Args:
        keys: {"energy", "forces", "stress" or a target: the name under which the file has it}; energies and forces are
            in eV.
        forces: whether forces are wanted.
        name: names a structure in messages, by its number.
        partial: whether these are some of more structures, and may have no label of `keys`.

    Raises:
        ValueError: no structure has a label of `keys`, or a label is no number or no vector for every atom.
    """
    keys = {canonical_target(target): label for target, label in (keys or {}).items()}
    columns, units, notes = {}, {}, []

    def column(label):
        values = [_number(_value(atoms, label)) for atoms in structures]
        if wrong := [row for row, value in enumerate(values) if value is None]:
            found = _value(structures[wrong[0]], label)
            raise ValueError(f"{name(wrong[0])}: {label}: expected a number, got {found!r}")
        return np.array(values, dtype=np.float64)

    if "energy" not in keys:
        energy, free = column("energy"), column("free_energy")
        notes += _choice(energy, free, forces)
        energy = np.where(np.isnan(free), energy, free) if forces else np.where(np.isnan(energy), free, energy)
        if not np.isnan(energy).all():
            columns["energy"], units["energy"] = energy, "eV"
    for target, label in keys.items():
        if target in ("forces", "stress"):
            continue
        columns[target] = column(label)
        if np.isnan(columns[target]).all() and not partial:
            raise ValueError(missing_label(f"data.keys.{target}", label, *_names(structures)))
        if target == "energy":
            units["energy"] = "eV"
        if target == "energy" and label not in ("energy", "free_energy"):
            notes.append(f"energy: {label}, in eV unless data.file_units.energy (--file-units) says otherwise")
    scalars, vectors = _names(structures)
    for label in scalars:
        target = canonical_target(label)
        if target not in columns and label not in keys.values() and label not in ("energy", "free_energy"):
            values = [_number(atoms.info.get(label)) for atoms in structures]
            columns[target] = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    if structures and all(QM9_MARK in atoms.info for atoms in structures):
        units |= {target: QM9_TARGETS[target].unit for target in columns if target in QM9_TARGETS}
    label = keys.get("forces", "forces")
    rows = [_vectors(atoms, label, name, number) for number, atoms in enumerate(structures)]
    found = any(row is not None for row in rows)
    if "forces" in keys and not found and not partial:
        raise ValueError(missing_label("data.keys.forces", label, scalars, vectors))
    if found:
        missing = [np.full((len(atoms), 3), np.nan) for atoms in structures]
        rows = [absent if row is None else row for row, absent in zip(rows, missing, strict=True)]
    stress = [_stress(atoms, keys.get("stress", "stress"), name, number) for number, atoms in enumerate(structures)]
    if all(matrix is None for matrix in stress):
        if "stress" in keys and not partial:
            raise ValueError(f"data.keys.stress: expected structures with {keys['stress']!r}, got none")
        stress = None
    else:
        stress = np.stack([np.full((3, 3), np.nan) if matrix is None else matrix for matrix in stress])
    return Labels(columns, units, np.concatenate(rows) if found else None, stress, vectors, tuple(notes))


def missing_label(where: str, wanted: str, scalars, vectors, forces: bool = False) -> str:
    """What to say where a label is not there: what the data has, and the option that would use it.

    Args:
        where: the option or argument. wanted: the label. scalars, vectors: names of what the data has.
        forces: whether forces are wanted, too, and are not there either.
    """
    target = where.rpartition(".")[2] if where.startswith("data.keys.") else wanted
    use = {target: _likely(target, wanted, vectors if target == "forces" else scalars)}
    if forces:
        use["forces"] = _likely("forces", "forces", vectors)
    on_atoms = f"vectors on atoms: {', '.join(vectors) or 'none'}"
    if target == "forces":
        text = f"{where}: expected data with {wanted!r}, got {on_atoms}"
    else:
        text = f"{where}: expected some of {', '.join(scalars)}, got {wanted!r}"
        text = text if scalars else f"{where}: expected data with a label {wanted!r}, got data without any"
        text += f"; {on_atoms}" if forces else ""
    line = ",".join(f"{name}={label}" for name, label in use.items() if label)
    return f"{text}; --keys {line} (in a config, data.keys) would use that" if line else text


def _likely(target: str, wanted: str, names) -> str | None:
    """Of names of labels, other than `wanted`, the one that means `target`, if one does."""
    stem = {"forces": "force"}.get(target, target).lower()
    return next((name for name in names if stem in name.lower() and name != wanted), None)


def _choice(energy: np.ndarray, free: np.ndarray, forces: bool) -> list[str]:
    """What to say about the two energies that a calculation with smearing has."""
    both = ~np.isnan(energy) & ~np.isnan(free)
    alone = np.isnan(energy) & ~np.isnan(free)
    notes = [f"energy: free_energy, in {alone.sum()} frames the only one"] if alone.any() else []
    if (energy[both] != free[both]).any():
        taken, other = ("free_energy, to which the forces belong", "energy") if forces else ("energy", "free_energy")
        rest = (np.isnan(free) & ~np.isnan(energy)).sum() if forces else 0
        which = f" in {both.sum()} frames, in {rest} others the only one there is" if rest else ""
        notes.append(f"energy: {taken}{which}; --keys energy={other} (in a config, data.keys) takes the other")
    return notes


def _value(atoms: Atoms, label: str):
    """The entry of this name in the results of the calculator, or in info; None: there is none."""
    results = {} if atoms.calc is None else atoms.calc.results
    value = results.get(label)
    return atoms.info.get(label) if value is None else value


def _number(value) -> float | None:
    """A float, NaN for None, None for what is no number."""
    if value is None:
        return float("nan")
    array = as_numbers(value)
    return float(array.reshape(())) if array is not None and array.size == 1 else None


def as_numbers(value) -> np.ndarray | None:
    """An array of numbers, None for anything else, as for lists of lists of different lengths."""
    try:
        array = np.asarray(value)
    except ValueError:
        return None
    return array if array.dtype.kind in "iuf" else None


def _vectors(atoms: Atoms, label: str, name, number: int) -> np.ndarray | None:
    """[N, 3] of this name in the results of the calculator, or in arrays; None: there are none."""
    value = None if atoms.calc is None else atoms.calc.results.get(label)
    value = atoms.arrays.get(label) if value is None else value
    if value is None:
        return None
    array = as_numbers(value)
    if array is None or array.shape != (len(atoms), 3):
        found = "others" if array is None else list(array.shape)
        raise ValueError(f"{name(number)}: {label}: expected [{len(atoms)}, 3] numbers, got {found}")
    return array.astype(np.float64)


def _stress(atoms: Atoms, label: str, name, number: int) -> np.ndarray | None:
    """The stress [3, 3] of this name; None: there is none."""
    value = _value(atoms, label)
    if value is None:
        return None
    array = as_numbers(value)
    if array is None or array.shape not in ((6,), (9,), (3, 3)):
        found = "others" if array is None else list(array.shape)
        raise ValueError(f"{name(number)}: {label}: expected [6], [9] or [3, 3] numbers, got {found}")
    from ase.stress import voigt_6_to_full_3x3_stress

    array = array.astype(np.float64)
    return voigt_6_to_full_3x3_stress(array) if array.shape == (6,) else array.reshape(3, 3)


def _names(structures: list[Atoms]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of numbers, and of vectors on atoms, that any structure has, in order of appearance."""
    scalars, vectors = {}, {}
    for atoms in structures:
        results = {} if atoms.calc is None else atoms.calc.results
        for label in ("energy", "free_energy"):
            if results.get(label) is not None:
                scalars[label] = None
        for label, value in atoms.info.items():
            if label not in scalars and label != QM9_MARK and value is not None and _number(value) is not None:
                scalars[str(label)] = None
        for label, value in {**results, **atoms.arrays}.items():
            if label not in vectors and label not in ("positions", "momenta", "forces", "initial_magmoms"):
                array = as_numbers(value)
                if array is not None and array.shape == (len(atoms), 3):
                    vectors[label] = None
    return tuple(scalars), tuple(vectors)
