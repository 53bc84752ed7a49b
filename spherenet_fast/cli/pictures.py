"""spherenet-fast filters and geometry: the pictures."""

from pathlib import Path
from typing import Annotated

import typer

from ._common import Checkpoint, Overwrite, Structures, errors_in_one_line


def filters(
    checkpoint: Checkpoint,
    out: Annotated[Path, typer.Option("--out", "-o", help="Picture to write, .png or .svg.")],
    block: Annotated[int, typer.Option(help="Interaction block, from 0.")] = 0,
    channel: Annotated[
        list[int] | None, typer.Option(help="A filter to draw, from 0; may be repeated.", show_default="six")
    ] = None,
    overwrite: Overwrite = False,
):
    """Draw learned torsion filters over distance and angle, for torsions 0 to 7 pi / 4 (the paper's Figure 6).

    Without --channel: the six filters of the block that depend most on the torsion.
    """
    from ..plots.files import check_picture, save
    from ..plots.filters import draw_filters
    from ..training.potential import Potential

    with errors_in_one_line():
        check_picture(out, overwrite)
        save(draw_filters(Potential.load(checkpoint).model, block, channel), out)
        print(f"picture in {out}")


def geometry(
    structures: Structures,
    out: Annotated[Path, typer.Option("--out", "-o", help="Picture to write, .png or .svg.")],
    bond: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="J I", help="The bond j->i, atoms from 0.", show_default="the shortest without hydrogen"),
    ] = None,
    frame: Annotated[int, typer.Option(help="Structure in the file, from 0; -1 is the last.")] = 0,
    cutoff: Annotated[
        float | None,
        typer.Option(min=1e-3, max=1e3, help="Reach of neighbors in Ang.", show_default="1.3 times the bond"),
    ] = None,
    overwrite: Overwrite = False,
):
    """Draw the distances, angles and torsions of a bond's neighbors, as SphereNet has them."""
    from ..data import read_structures
    from ..dynamics.structures import chosen_frame
    from ..plots.files import check_picture, save
    from ..plots.geometry import draw_geometry

    with errors_in_one_line():
        check_picture(out, overwrite)
        atoms = chosen_frame(read_structures(structures), frame)
        save(draw_geometry(atoms, bond, cutoff), out)
        print(f"picture in {out}")
