"""spherenet-fast check."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ._common import (
    CHECK_FAILED,
    Checkpoint,
    Device,
    Dtype,
    Frame,
    Minimum,
    Overwrite,
    Unit,
    errors_in_one_line,
    loaded,
)


def check(
    checkpoint: Checkpoint,
    structure: Minimum,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Picture to write: .png or .svg.", show_default="none")
    ] = None,
    frame: Frame = None,
    max_force_error: Annotated[float, typer.Option(help="eV/Ang, of forces against differences of energies.")] = 1e-4,
    max_jump: Annotated[float, typer.Option(help="meV, of the energy where an atom hardly moves.")] = 0.1,
    max_force_jump: Annotated[float, typer.Option(help="eV/Ang, of a force there.")] = 1e-3,
    max_mirror: Annotated[float, typer.Option(help="meV, of the mirror image against the structure.")] = 5.0,
    max_drift: Annotated[float, typer.Option(help="meV/atom/ps, of the energy in dynamics.")] = 0.1,
    lines: Annotated[int, typer.Option(min=1, help="At most so many bonds, and so many atoms, are moved.")] = 30,
    points: Annotated[int, typer.Option(min=12, help="On each line.")] = 41,
    picoseconds: Annotated[float, typer.Option(help="Of dynamics at constant energy; 0: none.")] = 1.0,
    timestep: Annotated[float, typer.Option(help="fs.")] = 0.5,
    temperature: Annotated[float, typer.Option(help="K, of the velocities at the start.")] = 300.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the velocities.")] = 0,
    dtype: Dtype = None,
    device: Device = "cpu",
    unit: Unit = None,
    overwrite: Overwrite = False,
):
    """Check whether a model is fit for dynamics: exact forces, no jumps, mirror image, constant energy, time of a step.

    Exit code 4 if a number is above its limit.
    """
    from ..checks import Limits, check_potential
    from ..dynamics.structures import starting_structure
    from ..plots.checks import draw_curves
    from ..plots.files import check_picture, save

    with errors_in_one_line():
        if out is not None:
            check_picture(out, overwrite)
        limits = Limits(max_force_error, max_jump, max_force_jump, max_mirror, max_drift)
        atoms = starting_structure(structure, frame)
        found = check_potential(
            loaded(checkpoint, device, unit, dtype), atoms, limits, lines=lines, points=points, picoseconds=picoseconds,
            timestep=timestep, temperature=temperature, seed=seed,
            report=lambda text: print(f"{text} ...", file=sys.stderr, flush=True),
        )  # fmt: skip
        print(table(found.rows))
        if out is not None:
            save(draw_curves(found.curves), out)
        if not found.passed:
            raise typer.Exit(CHECK_FAILED)


def table(rows) -> str:
    """A line for each row: what it is, its number, its limit, and whether it passes."""
    width = max(len(row.name) for row in rows)
    lines = []
    for row in rows:
        verdict = "" if row.limit is None else f"  at most {row.limit:g}, {'passed' if row.passed else 'FAILED'}"
        lines.append(f"{row.name:{width}} {row.value:10.3g} {row.unit:11}{verdict}".rstrip())
    return "\n".join(lines)
