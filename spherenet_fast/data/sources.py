"""From the words of a config to molecules: shipped samples, files, PyTorch Geometric's data sets."""

from importlib.resources import files
from pathlib import Path

import torch

from .ase_files import read_ase
from .molecules import Molecules
from .npz import read_npz
from .pyg import read_pyg

SAMPLES = ("ethanol", "qm9")


def sample_path(name: str) -> Path:
    """Where the shipped sample `name` ("ethanol" or "qm9") lies."""
    return Path(str(files("spherenet_fast") / "samples" / f"{name}.npz"))


def read_molecules(source: str, root=None, labels: str = "original", dtype: torch.dtype = torch.float32) -> Molecules:
    """Read molecules with all labels that the source has.

    Args:
        source: "ethanol" or "qm9" (shipped samples), a path to an ``.npz`` archive (layouts in `npz`), a path to any
            other file (read with ASE), or "pyg:QM9", "pyg:MD17/<molecule>".
        root: folder of PyTorch Geometric's data sets.
        labels: "original" or "revised" labels of MD17's frames, where a file has both.
        dtype: of positions and forces.

    Raises:
        FileNotFoundError, ValueError: the source is missing, damaged or unknown.
    """
    source = str(source)
    if source in SAMPLES:
        return read_npz(sample_path(source), labels, dtype)
    if source.startswith("pyg:"):
        if root is None:
            raise ValueError(
                f"data.root: expected the folder of PyTorch Geometric's data sets for {source!r}, got none"
            )
        return read_pyg(source.removeprefix("pyg:"), Path(root).expanduser(), dtype)
    path = Path(source).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"data.source: expected a file or one of {', '.join(SAMPLES)}; there is no {source!r}")
    return read_npz(path, labels, dtype) if path.suffix == ".npz" else read_ase(path, dtype)
