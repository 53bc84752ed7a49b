"""spherenet-fast evaluate."""

from pathlib import Path
from typing import Annotated

import typer

from ._common import KEYS, Checkpoint, Device, Unit, errors_in_one_line, loaded


def units_of(given: list[str] | None) -> dict[str, str]:
    """["energy=eV", ...] as {"energy": "eV"}; ValueError for anything else."""
    pairs = [text.partition("=") for text in given or []]
    for name, equals, unit in pairs:
        if not (name and equals and unit):
            raise ValueError(f"--file-units: expected NAME=UNIT, as energy=kcal/mol, got {name + equals + unit!r}")
    return {name: unit for name, _, unit in pairs}


def evaluate(
    checkpoint: Checkpoint,
    data: Annotated[str | None, typer.Option(help="Data to use.", show_default="those of the training run")] = None,
    file_units: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=UNIT", help="Unit in --data of a target, or of length or forces: energy=kcal/mol."),
    ] = None,
    split: Annotated[Path | None, typer.Option(help=".npz file with index arrays train, val, test.")] = None,
    part: Annotated[str, typer.Option(help="test, val, train or all.")] = "test",
    keys: Annotated[list[str] | None, KEYS] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=2**31 - 1)] = 32,
    device: Device = "cpu",
    unit: Unit = None,
    plot: Annotated[
        Path | None, typer.Option(help="Picture to write, .png or .svg: predictions over labels, histograms of errors.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="CSV file to write, a line for each molecule.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Extended XYZ to write: predictions, and labels as REF_energy, ..."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there already.")] = False,
):
    """Print the errors of a trained model; draw them, and write predictions beside labels.

    Without --data and --split: on the test molecules of its own run. With --data alone: on all molecules there.
    """
    import torch

    from .._files import check_output, write_file
    from ..data.labels import parse_keys
    from ..plots.errors import draw_errors
    from ..plots.files import check_picture, save
    from ..pretrained import checkpoint_file
    from ..training.evaluation import evaluation_data, predictions
    from ..training.evaluation.files import csv_text, labeled_structures
    from ..training.evaluation.tables import detailed_table
    from ..training.metrics import print_unseen_elements, spreads, standardized
    from ..training.predict import write_structures

    with errors_in_one_line():
        if plot is not None:
            check_picture(plot, overwrite, "--plot")
        for option, path in (("--csv", csv), ("--out", out)):
            if path is not None:
                check_output(path, overwrite, option)
        potential = loaded(checkpoint, device, unit)
        run = checkpoint_file(checkpoint).parent
        molecules, indices = evaluation_data(
            potential, data, split, part, file_units=units_of(file_units), keys=parse_keys(keys), run=run
        )
        if data is not None:  # else the run's own config decided what to test on
            potential.check_elements(torch.tensor(molecules.elements(indices)))
        found = predictions(potential, molecules, indices, batch_size)
        print(f"{len(indices)} molecules")
        print(detailed_table(potential, found))
        print_unseen_elements(potential, molecules, indices)
        if len(potential.names) > 1:
            ratio, log_ratio = standardized(found.errors(potential).mae, spreads(molecules, indices))
            print(f"std. MAE {100 * ratio:.3f} %  logMAE {log_ratio:.3f}")
        if plot is not None:
            save(draw_errors(found.compared(potential)), plot)
        if csv is not None:
            write_file(csv, csv_text(potential, found).encode())
        if out is not None:
            write_structures(out, labeled_structures(potential, molecules, found))
        for path in (plot, csv, out):
            if path is not None:
                print(f"written: {path}")
