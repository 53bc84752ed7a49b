"""spherenet-fast md."""

from pathlib import Path
from typing import Annotated

import typer

from ._common import Checkpoint, Device, Dtype, Frame, Start, Unit, check_input_stays, errors_in_one_line, loaded


def md(
    checkpoint: Checkpoint,
    structure: Start,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for trajectory, log and picture.")],
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
    seed: Annotated[int, typer.Option(min=0, help="Of velocities and random forces.")] = 0,
    frame: Frame = None,
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
    """Molecular dynamics of one structure; Ctrl-C saves (so does SIGTERM), and --resume goes on to the same end."""
    from ..dynamics.md import FILES, check_folder, run_dynamics
    from ..dynamics.settings import Settings, steps_of
    from ..dynamics.structures import starting_structure
    from ..training.callbacks.signals import Interrupted

    with errors_in_one_line():
        settings = Settings(
            ensemble=ensemble, steps=steps_of(steps, picoseconds, timestep), timestep=timestep, temperature=temperature,
            keep_velocities=keep_velocities, friction=friction, pressure=pressure, flexible=flexible, seed=seed,
            every=every, log_every=log_every, save_every=save_every, allow_apart=allow_apart,
        )  # fmt: skip
        check_folder(out, resume, overwrite)
        check_input_stays(structure, [out / name for name in FILES], "--out")
        atoms = starting_structure(structure, frame)
        potential = loaded(checkpoint, device, unit, dtype)
        try:
            ended = run_dynamics(potential, atoms, settings, out, resume, overwrite)
        except Interrupted as stop:
            print(f"stopped by {stop}; the same command with --resume goes on")
            raise typer.Exit(128 + stop.signum) from stop
        speed = f", {ended.speed}" if ended.speed else ""
        print(f"{ended.step} steps ({ended.step * timestep / 1000:g} ps) in {out}{speed}")
        if ended.drift is not None:
            print(f"energy that should be constant: drift {ended.drift / len(atoms):.3g} meV/atom/ps")
