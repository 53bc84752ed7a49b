"""From the words of a config to molecules: shipped samples, files, PyTorch Geometric's data sets."""

from importlib.resources import files
from pathlib import Path

import torch

from .ase_files import read_ase
from .lmdb import holds_lmdb, read_lmdb
from .molecules import Molecules
from .npz import read_npz
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

    Raises:
        FileNotFoundError, ValueError: the source is missing, damaged or unknown, or has no relaxations.
    """
    source = str(source)
    if relaxations and (source in SAMPLES or source.startswith("pyg:")):
        raise ValueError(f"data.relaxations: expected a source that holds relaxations, got {source!r}")
    if source in SAMPLES:
        return read_npz(sample_path(source), labels, dtype)
    if source.startswith("pyg:"):
        if root is None:
            raise ValueError(
                f"data.root: expected the folder of PyTorch Geometric's data sets for {source!r}, got none"
            )
        return read_pyg(source.removeprefix("pyg:"), Path(root).expanduser(), dtype)
    path = Path(source).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"data.source: expected a file or one of {', '.join(SAMPLES)}; there is no {source!r}")
    if holds_lmdb(path):
        return read_lmdb(path, dtype, relaxations)
    if path.suffix == ".npz":
        return read_npz(path, labels, dtype, relaxations)
    return read_ase(path, dtype, relaxations)
