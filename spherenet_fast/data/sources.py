"""From the words of a config to molecules: shipped samples, files, PyTorch Geometric's data sets."""

from importlib.resources import files
from pathlib import Path

import torch

from .ase_files import read_ase
from .file_units import in_stated_units
from .lmdb import holds_lmdb, read_lmdb
from .molecules import Molecules
from .npz import read_stored
from .pyg import read_pyg

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
) -> Molecules:
    """Read molecules with all labels that the source has.

    Args:
        source: "ethanol", "qm9" or "fcc111" (shipped samples), a path to an ``.npz`` archive (layouts in `npz` and
            `relaxations`), to an LMDB of OC20 or a folder of them, to any other file or a folder of files (read with
            ASE), or "pyg:QM9", "pyg:MD17/<molecule>".
        root: folder of PyTorch Geometric's data sets.
        labels: "original" or "revised" labels of MD17's frames, where a file has both.
        dtype: of positions and forces.
        relaxations: every relaxation is one structure, the initial one, with the energy of the relaxed one.
        file_units: {"length", "forces" or a target: unit} where the source does not say its units, or says them
            wrongly, as in `in_stated_units`.

    Raises:
        FileNotFoundError, ValueError: the source or a unit is missing, damaged or unknown, or has no relaxations.
    """
    file_units = file_units or {}
    molecules, units = _as_stored(str(source), root, labels, dtype, relaxations, file_units)
    return in_stated_units(molecules, units | file_units)


def _as_stored(source, root, labels, dtype, relaxations, corrected) -> tuple[Molecules, dict[str, str]]:
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
    path = Path(source).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"data.source: expected a file or one of {', '.join(SAMPLES)}; there is no {source!r}")
    if holds_lmdb(path):
        return read_lmdb(path, dtype, relaxations), {}
    if path.suffix == ".npz":
        return read_stored(path, labels, dtype, relaxations, corrected)
    return read_ase(path, dtype, relaxations), {}
