"""The command ``spherenet-fast``: train, evaluate, predict, and pictures."""

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from . import __version__
from ._freed_memory import keep_freed_memory

app = typer.Typer(
    help="SphereNet: train on molecules, evaluate, predict, draw.", no_args_is_help=True, add_completion=False,
    pretty_exceptions_enable=False,
)  # fmt: skip

# Exit codes: 2 the input is wrong (the message says what), 130 stopped by Ctrl-C, as shells have it.


@contextmanager
def _errors_in_one_line():
    """Wrong input ends the command with one line and exit code 2; anything else is a bug and keeps its traceback."""
    try:
        yield
    except (ValueError, TypeError, FileNotFoundError, PermissionError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from error


def _usable(device: str) -> str:
    """`device`, if PyTorch can put tensors there; else ValueError."""
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device: expected a device that PyTorch finds here, got {device!r}") from error
    return device


def _print_version(wanted: bool):
    if wanted:
        print(f"spherenet_fast {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
):
    keep_freed_memory()


@app.command()
def train(
    config: Annotated[
        str, typer.Argument(help="A YAML file, or a shipped config: ethanol, qm9, is2re, paper_md17:toluene, ...")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results.", show_default="runs/<config's name>")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override, as training.max_time=20.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the folder.")] = False,
):
    """Train a model; Ctrl-C saves, and --resume continues to the same result."""
    from .training import load_config, train
    from .training.config_files import run_name

    with _errors_in_one_line():
        settings = load_config(config, set_)
        out = out or Path("runs") / run_name(config)
        done = train(settings, out, resume)
        if done is None:
            raise typer.Exit(130)
        print(f"results in {out}")
        if done["note"]:
            print(f"warning: {done['note']}")


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="best.ckpt or last.ckpt of a run.")],
    data: Annotated[
        str | None, typer.Option(help="Data to use.", show_default="those of the training run")
    ] = None,
    split: Annotated[Path | None, typer.Option(help=".npz file with index arrays train, val, test.")] = None,
    part: Annotated[str, typer.Option(help="test, val, train or all.")] = "test",
    batch_size: Annotated[int, typer.Option(min=1, max=2**31 - 1)] = 32,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
):
    """Print the errors of a trained model.

    Without --data and --split: on the test molecules of its own run. With --data alone: on all molecules there.
    """
    from .training.accuracy import error_table, evaluate, print_unseen_elements, spreads, standardised
    from .training.evaluation import evaluation_data
    from .training.potential import Potential

    with _errors_in_one_line():
        potential = Potential.load(checkpoint, _usable(device))
        molecules, indices = evaluation_data(potential, data, split, part)
        if data is not None:  # else the run's own config decided what to test on
            potential.check_elements(molecules.z[molecules.atoms_of(indices)[0]])
        errors = evaluate(potential, molecules, indices, batch_size)
        print(f"{len(indices)} molecules")
        print(error_table(potential, errors))
        print_unseen_elements(potential, molecules, indices)
        if len(potential.names) > 1:
            ratio, log_ratio = standardised(errors.mae, spreads(molecules, indices))
            print(f"std. MAE {100 * ratio:.3f} %  logMAE {log_ratio:.3f}")


@app.command()
def predict(
    checkpoint: Annotated[Path, typer.Argument(help="best.ckpt or last.ckpt of a run.")],
    structures: Annotated[Path, typer.Argument(help="Any file of structures that ASE reads.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Extended XYZ file to write.")],
    forces: Annotated[bool, typer.Option(help="Forces too, where the target is a total energy.")] = True,
    batch_size: Annotated[int, typer.Option(min=1, max=2**31 - 1)] = 32,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
):
    """Write energies (eV) and forces (eV/Ang), or other targets in their units, for structures in a file."""
    from .data import read_structures
    from .training.potential import Potential
    from .training.predict import predict, write_structures

    with _errors_in_one_line():
        if not out.parent.is_dir():
            raise FileNotFoundError(f"--out: there is no folder {out.parent}")
        potential = Potential.load(checkpoint, _usable(device))
        predicted = predict(potential, read_structures(structures), batch_size, forces)
        write_structures(out, predicted)
        print(f"{len(predicted)} structures in {out}")


@app.command()
def filters(
    checkpoint: Annotated[Path, typer.Argument(help="best.ckpt or last.ckpt of a run.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Picture to write, .png or .svg.")],
    block: Annotated[int, typer.Option(help="Interaction block, from 0.")] = 0,
    channel: Annotated[
        list[int] | None, typer.Option(help="A filter to draw, from 0; may be repeated.", show_default="six")
    ] = None,
):
    """Draw learned torsion filters over distance and angle, for torsions 0 to 7 pi / 4 (the paper's Figure 6).

    Without --channel: the six filters of the block that depend most on the torsion.
    """
    from .pictures.files import check_picture, save
    from .pictures.filters import draw_filters
    from .training.potential import Potential

    with _errors_in_one_line():
        check_picture(out)
        save(draw_filters(Potential.load(checkpoint).model, block, channel), out)
        print(f"picture in {out}")


@app.command()
def geometry(
    structures: Annotated[Path, typer.Argument(help="Any file of structures that ASE reads.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Picture to write, .png or .svg.")],
    bond: Annotated[
        tuple[int, int] | None,
        typer.Option(
            metavar="J I", help="The bond j->i, atoms from 0.", show_default="the shortest without hydrogen"
        ),
    ] = None,
    frame: Annotated[int, typer.Option(help="Structure in the file, from 0; -1 is the last.")] = 0,
    cutoff: Annotated[
        float | None,
        typer.Option(min=1e-3, max=1e3, help="Reach of neighbors in Ang.", show_default="1.3 times the bond"),
    ] = None,
):
    """Draw the distances, angles and torsions of a bond's neighbours, as SphereNet has them."""
    from .data import read_structures
    from .pictures.files import check_picture, save
    from .pictures.geometry import draw_geometry

    with _errors_in_one_line():
        check_picture(out)
        found = read_structures(structures)
        if not -len(found) <= frame < len(found):
            raise ValueError(f"--frame: expected {-len(found)} to {len(found) - 1}, got {frame}")
        save(draw_geometry(found[frame], bond, cutoff), out)
        print(f"picture in {out}")


if __name__ == "__main__":
    app()
