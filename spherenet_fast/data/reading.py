"""How a source of molecules is read: options that any format may need, and the names and units that its user states."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from .file_units import in_stated_units
from .labels import missing_label
from .molecules import Molecules
from .targets import canonical_target


@dataclass(frozen=True)
class ReadOptions:
    """Options of `read_molecules`; a config's section data has those of the same names.

    Attributes:
        root: folder of PyTorch Geometric's data sets.
        labels: "original" or "revised" labels of MD17's frames, where a file has both.
        dtype: of positions and forces. Where the source's positions have more digits, every structure is moved to the
            origin, or by whole cells, before they are rounded.
        relaxations: every relaxation is one structure, the initial one, with the energy of the relaxed one.
        file_units: {"length", "forces" or a target: unit} where the source does not say its units, or says them
            wrongly, as in `in_stated_units`.
        keys: {target or "forces": the name under which the source has it}, as {"energy": "REF_energy"}.
        forces: whether forces are wanted; of a file's two energies, theirs is taken then (see `labels.find_labels`).
        stream: leave the structures in their files, which are LMDBs, NumPy archives or ASE's databases, and read each
            when a batch needs it; None: where the files are larger than an eighth of the machine's memory.
        index: folder of what is known of all structures that are read so; None: spherenet_fast in the user's cache.
        workers: processes that read them; 0: the one that trains; None: one a core, but at most 4.
    """

    root: str | Path | None = None
    labels: str = "original"
    dtype: torch.dtype = torch.float32
    relaxations: bool = False
    file_units: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    forces: bool = False
    stream: bool | None = None
    index: str | Path | None = None
    workers: int | None = None


def as_stated(molecules: Molecules, options: ReadOptions, units: Mapping[str, str] | None = None) -> Molecules:
    """The molecules of a format without names of its own for labels: with the names and units that its user states.

    units: {label: unit} of the file, where its numbers are not in Å and those of `molecules`, as for `in_stated_units`.
    Raises ValueError naming what `options` state of labels that are not there.
    """
    named = {label: name for name, label in options.keys.items()}
    of_file = {named.get(label, label): unit for label, unit in (units or {}).items()}
    return in_stated_units(_renamed(molecules, options.keys), of_file | dict(options.file_units))


def _renamed(molecules: Molecules, keys: Mapping[str, str]) -> Molecules:
    """The same molecules with the targets of `keys` under the names there."""
    names = list(molecules.names)
    for target, label in keys.items():
        if target in ("forces", "stress") and label != target:
            raise ValueError(f"data.keys.{target}: expected none for data that ASE does not read, got {label!r}")
        if target in ("forces", "stress"):
            continue
        if canonical_target(label) not in molecules.names:
            raise ValueError(missing_label(f"data.keys.{target}", label, molecules.names, molecules.vectors))
        target, place = canonical_target(target), molecules.names.index(canonical_target(label))
        if target in names and names.index(target) != place:
            names[names.index(target)] = f"{target} of the file"
        names[place] = target
    return replace(molecules, names=tuple(names))
