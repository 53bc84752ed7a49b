"""spherenet-fast predict."""

from pathlib import Path
from typing import Annotated

import typer

from ._common import Checkpoint, Device, Overwrite, Structures, Unit, errors_in_one_line, loaded


def predict(
    checkpoint: Checkpoint,
    structures: Structures,
    out: Annotated[Path, typer.Option("--out", "-o", help="Extended XYZ file to write.")],
    forces: Annotated[bool, typer.Option(help="Forces too, where the target is a total energy.")] = True,
    keys: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=LABEL,...", help="Names to write, as energy=NN_energy,forces=NN_forces."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=2**31 - 1)] = 32,
    device: Device = "cpu",
    unit: Unit = None,
    overwrite: Overwrite = False,
):
    """Write energies (eV) and forces (eV/Ang), or other targets in their units, for structures in a file."""
    from .._files import check_output
    from ..data import read_structures
    from ..data.labels import parse_keys
    from ..training.predict import predict, write_structures

    with errors_in_one_line():
        check_output(out, overwrite)
        potential = loaded(checkpoint, device, unit)
        found = read_structures(structures)
        predicted = predict(potential, found, batch_size, forces, parse_keys(keys), str(structures))
        write_structures(out, predicted)
        print(f"{len(predicted)} structures in {out}")
