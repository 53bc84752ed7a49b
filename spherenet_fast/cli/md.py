"""spherenet-fast md."""

from pathlib import Path
from typing import Annotated

import typer

from ._common import Checkpoint, Device, Dtype, Structures, Unit, check_input_stays, errors_in_one_line, loaded


def md(
    checkpoint: Checkpoint,
    structures: Structures,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Folder for trajectory, log and picture, of several structures a folder for each in it."
        ),
    ],
    ensemble: Annotated[
        str, typer.Option(help="nve (constant energy), langevin (temperature) or npt (temperature and pressure).")
    ] = "langevin",
    temperature: Annotated[
        float | None, typer.Option(help="K, of the start and the thermostat.", show_default="300")
    ] = None,
    timestep: Annotated[float, typer.Option(help="fs.")] = 0.5,
    steps: Annotated[int | None, typer.Option(min=0, help="Of the whole run, resumed parts included.")] = None,
    picoseconds: Annotated[float | None, typer.Option(help="The same as a time.", show_default="1")] = None,
    friction: Annotated[float | None, typer.Option(help="1/fs, of langevin.", show_default="0.01")] = None,
    pressure: Annotated[float | None, typer.Option(help="GPa, of npt.", show_default="0")] = None,
    flexible: Annotated[bool, typer.Option("--flexible", help="npt changes the cell's shape, too.")] = False,
    keep_velocities: Annotated[
        bool, typer.Option("--keep-velocities", help="Start with the velocities in the file.")
    ] = False,
    seed: Annotated[
        int, typer.Option(min=0, help="Of velocities and random forces, plus 1 for each further structure.")
    ] = 0,
    frame: Annotated[
        int | None,
        typer.Option(help="Structure in the file, from 0; -1 is the last.", show_default="all in one batch"),
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Steps between frames of the trajectory.")] = 10,
    log_every: Annotated[int, typer.Option(min=1, help="Steps between rows of the log.")] = 10,
    save_every: Annotated[
        float, typer.Option(min=0, help="Seconds between saved states: what a killed run loses at most.")
    ] = 10,
    allow_apart: Annotated[
        bool, typer.Option("--allow-apart", help="Go on where an atom has lost all neighbors, as in a gas.")
    ] = False,
    dtype: Dtype = None,
    device: Device = "cpu",
    unit: Unit = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder; it ends as without the interruption.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run in the folder.")] = False,
):
    """Molecular dynamics of structures; Ctrl-C saves (so does SIGTERM), and --resume goes on to the same end.

    Several structures move together: each step is one call of the network.
    """
    from ..dynamics.md import run_batch
    from ..dynamics.settings import Settings, steps_of
    from ..dynamics.state import check_folder, files_of, folder_of
    from ..dynamics.structures import starting_structures
    from ..training.callbacks.signals import Interrupted

    with errors_in_one_line():
        settings = Settings(
            ensemble=ensemble, steps=steps_of(steps, picoseconds, timestep), timestep=timestep, temperature=temperature,
            keep_velocities=keep_velocities, friction=friction, pressure=pressure, flexible=flexible, seed=seed,
            every=every, log_every=log_every, save_every=save_every, allow_apart=allow_apart,
        )  # fmt: skip
        check_folder(out, resume, overwrite)
        found = starting_structures(structures, frame)
        check_input_stays(structures, files_of(out), "--out")
        potential = loaded(checkpoint, device, unit, dtype)
        try:
            runs = run_batch(potential, found, settings, out, resume, overwrite)
        except Interrupted as stop:
            print(f"stopped by {stop}; the same command with --resume goes on")
            raise typer.Exit(128 + stop.signum) from stop
        ended, of = runs[0], f" of {len(runs)} structures" if len(runs) > 1 else ""
        speed = f", {ended.speed}" if ended.speed else ""
        print(f"{ended.step} steps ({ended.step * timestep / 1000:g} ps){of} in {out}{speed}")
        for number, ended in enumerate(runs):
            name = f"{folder_of(number)}: " if len(runs) > 1 else ""
            if ended.drift is not None:
                print(f"{name}energy that should be constant: drift {ended.drift / len(ended.atoms):.3g} meV/atom/ps")
