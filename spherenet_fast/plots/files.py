"""Writing a figure, all or nothing."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from .._files import check_output, write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg")


def check_picture(path, overwrite: bool = True, option: str = "--out") -> Path:
    """`path`, which `option` has given, as a place for a picture.

    Raises:
        OSError: see `check_output`.
        ValueError: the name ends in neither .png nor .svg.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"{option}: expected a name that ends in {' or '.join(FORMATS)}, got {path.name!r}")
    check_output(path, overwrite, option)
    return path


def save(figure: Figure, path, dpi: int = 130) -> None:
    """Write a figure as PNG or SVG, as its name ends. Raises what `check_picture` raises.

    dpi: dots per inch of a PNG, and of what an SVG keeps as an image.
    """
    path = check_picture(path)
    metadata = {"Software": None} if path.suffix.lower() == ".png" else {"Date": None}  # equal figures, equal files
    picture = BytesIO()
    figure.savefig(
        picture, format=path.suffix.lower()[1:], dpi=dpi, metadata=metadata, bbox_inches="tight", pad_inches=0.1
    )
    write_file(path, picture.getvalue())
