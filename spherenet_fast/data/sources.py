"""From the words of a config to molecules: shipped samples, files, PyTorch Geometric's data sets."""

import os
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from .formats import ase_databases, ase_files, lmdb, npz, npz_shards, pyg
from .molecules import Molecules, Origin
from .reading import ReadOptions
from .streams.molecules import StreamedMolecules, streamed
from .streams.records import Records

SAMPLES = ("ethanol", "toluene", "qm9", "fcc111", "paracetamol")
FORMATS = (pyg, lmdb, npz_shards, npz, ase_files)  # the first that holds a source reads it; see `formats`
STREAMED = (lmdb, npz_shards, ase_databases)  # those that read single structures
LARGE = 8  # files of more than the machine's memory over this are not read as a whole: in memory they need more
MOST_WORKERS = 4


def sample_path(name: str) -> Path:
    """Where the shipped sample `name`, one of SAMPLES, lies."""
    return Path(str(files("spherenet_fast") / "samples" / f"{name}.npz"))


def read_molecules(source, **options: Any) -> Molecules | StreamedMolecules:
    """Read molecules with all labels that the source has; those of files larger than memory stay there.

    Args:
        source: "ethanol", "toluene", "qm9", "fcc111" or "paracetamol" (shipped samples), a path to an ``.npz`` archive
            (layouts in `npz` and `relaxations`) or a folder of them, to an LMDB of OC20 or a folder of them, to any
            other file or a folder of files (read with ASE), or "pyg:QM9", "pyg:MD17/<molecule>".
        options: see `ReadOptions`: root, labels, dtype, relaxations, file_units, keys, forces, stream, index, workers.

    Raises:
        FileNotFoundError, ValueError: the source or a unit is missing, damaged or unknown, has no relaxations, or no
            label of `keys`, or `stream` is true of a source whose structures are not read one by one.
    """
    source = str(source)
    chosen = ReadOptions(**{name: value for name, value in options.items() if value is not None})
    path = source_path(source)
    if path is None and chosen.relaxations:
        raise ValueError(f"data.relaxations: expected a source that holds relaxations, got {source!r}")
    if not source or (path is not None and not path.exists()):  # an empty path would be the current folder
        raise FileNotFoundError(f"data.source: expected a file or one of {', '.join(SAMPLES)}; there is no {source!r}")
    place = str(sample_path(source) if source in SAMPLES else path or source)
    if chosen.stream is not False and (records := _records_to_stream(place, path, chosen)) is not None:
        workers = min(os.cpu_count() or 1, MOST_WORKERS) if chosen.workers is None else chosen.workers
        return streamed(records, place, chosen, workers)
    molecules = next(each for each in FORMATS if each.holds(place)).read_source(place, chosen)
    return replace(molecules, origin=Origin((source,), (len(molecules),))) if molecules.origin is None else molecules


def _records_to_stream(place: str, path: Path | None, options: ReadOptions) -> Records | None:
    """The structures at `place` one by one, if that is asked for or they are many; else None."""
    found = None if path is None else next((one for each in STREAMED if (one := each.records(place, options))), None)
    if found is None and options.stream:
        raise ValueError(
            "data.stream: expected an LMDB, .npz archives or ASE databases (.db), or a folder of one of these, and no "
            f"data.relaxations but in an LMDB; got {place!r}"
        )
    if found is None or options.stream:
        return found
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 2**33
    size = sum(file.stat().st_size for file in found.files)
    if size <= memory // LARGE:
        return None
    print(f"{place}: {size / 1e9:.1f} GB, read as it is needed (data.stream)", flush=True)
    return found


def source_path(source: str) -> Path | None:
    """Where the data `source` lies; None for what is known by name."""
    return None if source in SAMPLES or source.startswith("pyg:") else Path(source).expanduser()
