"""From the words of a config to molecules: shipped samples, files, PyTorch Geometric's data sets."""

from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from .formats import ase_files, lmdb, npz, pyg
from .molecules import Molecules, Origin
from .reading import ReadOptions

SAMPLES = ("ethanol", "toluene", "qm9", "fcc111", "paracetamol")
FORMATS = (pyg, lmdb, npz, ase_files)  # the first that holds a source reads it; see `formats`


def sample_path(name: str) -> Path:
    """Where the shipped sample `name`, one of SAMPLES, lies."""
    return Path(str(files("spherenet_fast") / "samples" / f"{name}.npz"))


def read_molecules(source, **options: Any) -> Molecules:
    """Read molecules with all labels that the source has.

    Args:
        source: "ethanol", "toluene", "qm9", "fcc111" or "paracetamol" (shipped samples), a path to an ``.npz`` archive
            (layouts in `npz` and `relaxations`), to an LMDB of OC20 or a folder of them, to any other file or a folder
            of files (read with ASE), or "pyg:QM9", "pyg:MD17/<molecule>".
        options: see `ReadOptions`: root, labels, dtype, relaxations, file_units, keys, forces.

    Raises:
        FileNotFoundError, ValueError: the source or a unit is missing, damaged or unknown, has no relaxations, or no
            label of `keys`.
    """
    source = str(source)
    chosen = ReadOptions(**{name: value for name, value in options.items() if value is not None})
    path = source_path(source)
    if path is None and chosen.relaxations:
        raise ValueError(f"data.relaxations: expected a source that holds relaxations, got {source!r}")
    if path is not None and not path.exists():
        raise FileNotFoundError(f"data.source: expected a file or one of {', '.join(SAMPLES)}; there is no {source!r}")
    place = str(sample_path(source) if source in SAMPLES else path or source)
    molecules = next(each for each in FORMATS if each.holds(place)).read_source(place, chosen)
    return replace(molecules, origin=Origin((source,), (len(molecules),))) if molecules.origin is None else molecules


def source_path(source: str) -> Path | None:
    """Where the data `source` lies; None for what is known by name."""
    return None if source in SAMPLES or source.startswith("pyg:") else Path(source).expanduser()
