"""Writing a figure, all or nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg")


def check_picture(path) -> Path:
    """`path` as a place for a picture.

    Raises:
        FileNotFoundError: its folder does not exist.
        ValueError: the name ends in neither .png nor .svg.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"--out: expected a name that ends in {' or '.join(FORMATS)}, got {path.name!r}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"--out: there is no folder {path.parent}")
    return path


def save(figure: Figure, path, dpi: int = 130) -> None:
    """Write a figure as PNG or SVG, as its name ends. Raises what `check_picture` raises.

    dpi: dots per inch of a PNG, and of what an SVG keeps as an image.
    """
    path = check_picture(path)
    partial = path.with_name(path.name + ".partial")
    metadata = {"Software": None} if path.suffix.lower() == ".png" else {"Date": None}  # equal figures, equal files
    try:
        figure.savefig(
            partial, format=path.suffix.lower()[1:], dpi=dpi, metadata=metadata, bbox_inches="tight", pad_inches=0.1
        )
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
