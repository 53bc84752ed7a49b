"""spherenet-fast sample."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ._common import Device, Frame, Start, errors_in_one_line, loaded


def sample(
    structure: Start,
    out: Annotated[Path, typer.Option("--out", "-o", help="Extended XYZ file to write, of energies and forces.")],
    calculator: Annotated[
        str, typer.Option(help="Of the labels: tblite:METHOD, or any of ASE's as MODULE:NAME, a class or a function.")
    ] = "tblite:GFN2-xTB",
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="What the calculator is made with, as charge=1.")
    ] = None,
    temperature: Annotated[
        list[float] | None, typer.Option(help="K, once for each; they share the frames.", show_default="500")
    ] = None,
    frames: Annotated[int, typer.Option(min=1, help="To write, of all temperatures.")] = 1200,
    every: Annotated[str, typer.Option(help="Time from a frame to the next, as 5fs or 0.01ps.")] = "5fs",
    equilibrate: Annotated[str, typer.Option(help="Time before the first frame.")] = "0.5ps",
    timestep: Annotated[float, typer.Option(help="fs.")] = 0.5,
    friction: Annotated[float, typer.Option(help="1/fs.")] = 0.02,
    seed: Annotated[int, typer.Option(min=0, help="Of velocities and random forces.")] = 0,
    frame: Frame = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(help="Several: move by their mean, and label the frames on which they agree least.",
                     show_default="move by the calculator"),
    ] = None,
    candidates: Annotated[int, typer.Option(min=1, help="With --checkpoint: frames to choose each one from.")] = 10,
    save_every: Annotated[
        float, typer.Option(min=0, help="Seconds between saved states: what a killed run loses at most.")
    ] = 10,
    device: Device = "cpu",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped or killed.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file, and the run behind it.")] = False,
):  # fmt: skip
    """Make training data of one structure: Langevin dynamics with energies and forces of a calculator of ASE.

    With several --checkpoint: a round of active learning. Ctrl-C saves, and --resume goes on.
    """
    from ..calculators.named import named_calculator, parsed_options
    from ..dynamics.forces import Forces
    from ..dynamics.sampling import Plan, femtoseconds, sample, sample_where_unsure
    from ..dynamics.structures import starting_structure
    from ..training.callbacks.signals import Interrupted

    with errors_in_one_line():
        plan = Plan(
            frames, temperature or [500.0], femtoseconds(every, "--every"), femtoseconds(equilibrate, "--equilibrate"),
            timestep, friction, seed, save_every,
        )  # fmt: skip
        if checkpoint and len(checkpoint) < 2:
            raise ValueError("--checkpoint: expected at least two, which may disagree, got one")
        atoms = starting_structure(structure, frame)
        options = parsed_options(option)
        reference = named_calculator(calculator, options)
        name = " ".join([calculator, *(f"{key}={value}" for key, value in sorted(options.items()))])
        try:
            if checkpoint:
                committee = Forces.of_committee([loaded(path, device, None) for path in checkpoint])
                found = sample_where_unsure(
                    committee, reference, name, atoms, plan, candidates, out, resume, overwrite,
                    report=lambda text: print(text, file=sys.stderr, flush=True),
                )  # fmt: skip
            else:
                found = sample(reference, name, atoms, plan, out, resume, overwrite)
        except Interrupted as stop:
            print(f"stopped by {stop}; the same command with --resume goes on")
            raise typer.Exit(128 + stop.signum) from stop
        print(f"{len(found)} frames in {out}")
