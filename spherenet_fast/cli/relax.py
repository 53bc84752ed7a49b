"""spherenet-fast relax."""

from pathlib import Path
from typing import Annotated

import typer

from ._common import (
    NOT_CONVERGED,
    Checkpoint,
    Device,
    Dtype,
    Overwrite,
    Structures,
    Unit,
    check_input_stays,
    errors_in_one_line,
    loaded,
)


def relax(
    checkpoint: Checkpoint,
    structures: Structures,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Extended XYZ file to write; the way there is beside it, a .traj.")
    ],
    optimizer: Annotated[str, typer.Option(help="bfgs, lbfgs (many atoms) or fire (rough starts).")] = "bfgs",
    fmax: Annotated[float, typer.Option(help="Largest force of a relaxed structure, eV/Ang.")] = 0.01,
    steps: Annotated[int, typer.Option(min=0, help="At most, for each structure.")] = 500,
    cell: Annotated[bool, typer.Option("--cell", help="Relax the cell, too.")] = False,
    dtype: Dtype = None,
    device: Device = "cpu",
    unit: Unit = None,
    overwrite: Overwrite = False,
):
    """Relax structures, one after another; exit code 3 if one has not converged."""
    from ..data import read_structures
    from ..dynamics.relaxation import relax
    from ..training.callbacks.signals import Interrupted

    def report(number, relaxed):
        state = "converged" if relaxed.converged else "not converged"
        print(
            f"structure {number}: {state} after {relaxed.steps} steps, {relaxed.energy:.6f} eV, "
            f"largest force {relaxed.fmax:.3g} eV/Ang",
            flush=True,
        )

    with errors_in_one_line():
        check_input_stays(structures, [out.with_suffix(".traj")], "--out")
        found = read_structures(structures)
        potential = loaded(checkpoint, device, unit, dtype)
        try:
            results = relax(potential, found, out, optimizer, fmax, steps, cell, overwrite, report)
        except Interrupted as stop:
            raise typer.Exit(128 + stop.signum) from stop
        print(f"{len(results)} {'structure' if len(results) == 1 else 'structures'} in {out}")
        if not all(relaxed.converged for relaxed in results):
            raise typer.Exit(NOT_CONVERGED)
