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

_KEYS = typer.Option(
    metavar="NAME=LABEL,...", help="Names of labels in the data, as energy=REF_energy,forces=REF_forces."
)

# Exit codes: 2 the input is wrong or a file cannot be read or written (the message says what); 130 stopped by Ctrl-C,
# 143 by SIGTERM, 128 + its number by another signal, as shells have it.


@contextmanager
def _errors_in_one_line():
    """Wrong input ends the command with one line and exit code 2, and so does a file that cannot be read or written.

    Anything else is a bug and keeps its traceback.
    """
    try:
        yield
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        if isinstance(error, BrokenPipeError) and error.filename is None:
            raise  # whoever read standard output has left, which is no error
        text = f"{error.filename}: {error.strerror}" if getattr(error, "filename", None) else str(error)
        print(f"error: {' '.join(text.split())}", file=sys.stderr)
        raise typer.Exit(2) from error


def _loaded(checkpoint: Path, device: str, unit: str | None):
    """The potential in a checkpoint, with the unit of its energy where the user states it."""
    from ._devices import usable_device
    from .training.potential import Potential

    potential = Potential.load(checkpoint, usable_device(device, "--device"))
    if unit is not None:
        potential.state_unit(unit)
    return potential


_Unit = Annotated[str | None, typer.Option(help="Of the checkpoint's energy, where its training data did not say.")]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there already.")]


def _units(given: list[str] | None) -> dict[str, str]:
    """["energy=eV", ...] as {"energy": "eV"}; ValueError for anything else."""
    pairs = [text.partition("=") for text in given or []]
    for name, equals, unit in pairs:
        if not (name and equals and unit):
            raise ValueError(f"--file-units: expected NAME=UNIT, as energy=kcal/mol, got {name + equals + unit!r}")
    return {name: unit for name, _, unit in pairs}


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
        str, typer.Argument(help="A YAML file, or a shipped config: ethanol, qm9, slabs, paper_md17:toluene, ...")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results.", show_default="runs/<config's name>")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override, as training.max_time=20.")
    ] = None,
    keys: Annotated[list[str] | None, _KEYS] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in the folder; its own config.yaml will do as CONFIG.")
    ] = False,
):
    """Train a model; Ctrl-C saves (so do SIGTERM and SIGUSR1), and --resume continues to the same result."""
    from .data.labels import parse_keys
    from .training import load_config
    from .training.callbacks.signals import Interrupted
    from .training.config.files import run_name
    from .training.run import train_to_the_end

    with _errors_in_one_line():
        named = [f"data.keys.{name}={label}" for name, label in (parse_keys(keys) or {}).items()]
        settings = load_config(config, [*(set_ or []), *named])
        of_run = Path(config).parent  # a run is resumed by its own config, too
        if resume and out is None and Path(config).name == "config.yaml" and (of_run / "split.npz").is_file():
            out = of_run
        out = out or Path("runs") / run_name(config)
        try:
            results = train_to_the_end(settings, out, resume)
        except Interrupted as stop:
            raise typer.Exit(128 + stop.signum) from stop
        print(f"results in {out}")
        if results["note"]:
            print(f"warning: {results['note']}")


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="best.ckpt or last.ckpt of a run.")],
    data: Annotated[str | None, typer.Option(help="Data to use.", show_default="those of the training run")] = None,
    file_units: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=UNIT", help="Unit in --data of a target, or of length or forces: energy=kcal/mol."),
    ] = None,
    split: Annotated[Path | None, typer.Option(help=".npz file with index arrays train, val, test.")] = None,
    part: Annotated[str, typer.Option(help="test, val, train or all.")] = "test",
    keys: Annotated[list[str] | None, _KEYS] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=2**31 - 1)] = 32,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    unit: _Unit = None,
):
    """Print the errors of a trained model.

    Without --data and --split: on the test molecules of its own run. With --data alone: on all molecules there.
    """
    from .data.labels import parse_keys
    from .training.evaluation import evaluation_data
    from .training.metrics import error_table, evaluate, print_unseen_elements, spreads, standardized

    with _errors_in_one_line():
        potential = _loaded(checkpoint, device, unit)
        molecules, indices = evaluation_data(
            potential, data, split, part, file_units=_units(file_units), keys=parse_keys(keys), run=checkpoint.parent
        )
        if data is not None:  # else the run's own config decided what to test on
            potential.check_elements(molecules.z[molecules.atoms_of(indices)[0]])
        errors = evaluate(potential, molecules, indices, batch_size)
        print(f"{len(indices)} molecules")
        print(error_table(potential, errors))
        print_unseen_elements(potential, molecules, indices)
        if len(potential.names) > 1:
            ratio, log_ratio = standardized(errors.mae, spreads(molecules, indices))
            print(f"std. MAE {100 * ratio:.3f} %  logMAE {log_ratio:.3f}")


@app.command()
def predict(
    checkpoint: Annotated[Path, typer.Argument(help="best.ckpt or last.ckpt of a run.")],
    structures: Annotated[Path, typer.Argument(help="Any file of structures that ASE reads.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Extended XYZ file to write.")],
    forces: Annotated[bool, typer.Option(help="Forces too, where the target is a total energy.")] = True,
    keys: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=LABEL,...", help="Names to write, as energy=NN_energy,forces=NN_forces."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=2**31 - 1)] = 32,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    unit: _Unit = None,
    overwrite: _Overwrite = False,
):
    """Write energies (eV) and forces (eV/Ang), or other targets in their units, for structures in a file."""
    from ._files import check_output
    from .data import read_structures
    from .data.labels import parse_keys
    from .training.predict import predict, write_structures

    with _errors_in_one_line():
        check_output(out, overwrite)
        potential = _loaded(checkpoint, device, unit)
        found = read_structures(structures)
        predicted = predict(potential, found, batch_size, forces, parse_keys(keys), str(structures))
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
    overwrite: _Overwrite = False,
):
    """Draw learned torsion filters over distance and angle, for torsions 0 to 7 pi / 4 (the paper's Figure 6).

    Without --channel: the six filters of the block that depend most on the torsion.
    """
    from .plots.files import check_picture, save
    from .plots.filters import draw_filters
    from .training.potential import Potential

    with _errors_in_one_line():
        check_picture(out, overwrite)
        save(draw_filters(Potential.load(checkpoint).model, block, channel), out)
        print(f"picture in {out}")


@app.command()
def geometry(
    structures: Annotated[Path, typer.Argument(help="Any file of structures that ASE reads.")],
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
    overwrite: _Overwrite = False,
):
    """Draw the distances, angles and torsions of a bond's neighbors, as SphereNet has them."""
    from .data import read_structures
    from .plots.files import check_picture, save
    from .plots.geometry import draw_geometry

    with _errors_in_one_line():
        check_picture(out, overwrite)
        found = read_structures(structures)
        if not -len(found) <= frame < len(found):
            raise ValueError(f"--frame: expected {-len(found)} to {len(found) - 1}, got {frame}")
        save(draw_geometry(found[frame], bond, cutoff), out)
        print(f"picture in {out}")


if __name__ == "__main__":
    app()
