"""From the words of a config to molecules: shipped samples, files, PyTorch Geometric's data sets."""

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import torch

from .file_units import in_stated_units
from .formats.ase_files import read_ase
from .formats.lmdb import holds_lmdb, read_lmdb
from .formats.npz import read_stored
from .formats.pyg import read_pyg
from .labels import missing_label
from .molecules import Molecules, Origin
from .targets import canonical_target

SAMPLES = ("ethanol", "qm9", "fcc111")


def sample_path(name: str) -> Path:
    """Where the shipped sample `name` ("ethanol", "qm9" or "fcc111") lies."""
    return Path(str(files("spherenet_fast") / "samples" / f"{name}.npz"))


def read_molecules(
    source: str,
    root=None,
    labels: str = "original",
    dtype: torch.dtype = torch.float32,
    relaxations: bool = False,
    *,
    file_units: dict[str, str] | None = None,
    keys: dict[str, str] | None = None,
    forces: bool = False,
) -> Molecules:
    """Read molecules with all labels that the source has.

    Args:
        source: "ethanol", "qm9" or "fcc111" (shipped samples), a path to an ``.npz`` archive (layouts in `npz` and
            `relaxations`), to an LMDB of OC20 or a folder of them, to any other file or a folder of files (read with
            ASE), or "pyg:QM9", "pyg:MD17/<molecule>".
        root: folder of PyTorch Geometric's data sets.
        labels: "original" or "revised" labels of MD17's frames, where a file has both.
        dtype: of positions and forces. Where the source's positions have more digits, every structure is moved to the
            origin, or by whole cells, before they are rounded.
        relaxations: every relaxation is one structure, the initial one, with the energy of the relaxed one.
        file_units: {"length", "forces" or a target: unit} where the source does not say its units, or says them
            wrongly, as in `in_stated_units`.
        keys: {target or "forces": the name under which the source has it}, as {"energy": "REF_energy"}.
        forces: whether forces are wanted; of a file's two energies, theirs is taken then (see `labels.find_labels`).

    Raises:
        FileNotFoundError, ValueError: the source or a unit is missing, damaged or unknown, has no relaxations, or no
            label of `keys`.
    """
    source, file_units, keys = str(source), file_units or {}, keys or {}
    path = source_path(source)
    if path is not None and path.exists() and path.suffix != ".npz" and not holds_lmdb(path):
        return in_stated_units(read_ase(path, dtype, relaxations, keys, forces), file_units)
    corrected = {keys.get(name, name): unit for name, unit in file_units.items()}
    molecules, units = _as_stored(source, path, root, labels, dtype, relaxations, corrected)
    named = {label: name for name, label in keys.items()}
    units = {named.get(label, label): unit for label, unit in units.items()}
    molecules = in_stated_units(_renamed(molecules, keys), units | file_units)
    return replace(molecules, origin=Origin((source,), (len(molecules),))) if molecules.origin is None else molecules


def source_path(source: str) -> Path | None:
    """Where the data `source` lies; None for what is known by name."""
    return None if source in SAMPLES or source.startswith("pyg:") else Path(source).expanduser()


def _as_stored(source, path, root, labels, dtype, relaxations, corrected) -> tuple[Molecules, dict[str, str]]:
    """Molecules, and the units that the source states, but for those `corrected`, for `in_stated_units`."""
    if relaxations and (source in SAMPLES or source.startswith("pyg:")):
        raise ValueError(f"data.relaxations: expected a source that holds relaxations, got {source!r}")
    if source in SAMPLES:
        return read_stored(sample_path(source), labels, dtype, relaxations, corrected)
    if source.startswith("pyg:"):
        if root is None:
            raise ValueError(
                f"data.root: expected the folder of PyTorch Geometric's data sets for {source!r}, got none"
            )
        return read_pyg(source.removeprefix("pyg:"), Path(root).expanduser(), dtype), {}
    if not path.exists():
        raise FileNotFoundError(f"data.source: expected a file or one of {', '.join(SAMPLES)}; there is no {source!r}")
    if holds_lmdb(path):
        return read_lmdb(path, dtype, relaxations), {}
    return read_stored(path, labels, dtype, relaxations, corrected)


def _renamed(molecules: Molecules, keys: dict[str, str]) -> Molecules:
    """The same molecules with the targets of `keys` under the names there."""
    names = list(molecules.names)
    for target, label in keys.items():
        if target == "forces" and label != "forces":
            raise ValueError(f"data.keys.forces: expected none for data that ASE does not read, got {label!r}")
        if target == "forces":
            continue
        if canonical_target(label) not in molecules.names:
            raise ValueError(missing_label(f"data.keys.{target}", label, molecules.names, molecules.vectors))
        target, place = canonical_target(target), molecules.names.index(canonical_target(label))
        if target in names and names.index(target) != place:
            names[names.index(target)] = f"{target} of the file"
        names[place] = target
    return replace(molecules, names=tuple(names))
