"""spherenet-fast predict."""

from pathlib import Path
from typing import Annotated

import typer

from ._common import AllowUnseen, Checkpoint, Device, Overwrite, Structures, Unit, errors_in_one_line, loaded


def predict(
    checkpoint: Checkpoint,
    structures: Structures,
    out: Annotated[Path, typer.Option("--out", "-o", help="Extended XYZ file to write.")],
    forces: Annotated[
        bool, typer.Option(help="Forces too, and the stress of cells, where the target is a total energy.")
    ] = True,
    keys: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=LABEL,...", help="Names to write, as energy=NN_energy,forces=NN_forces."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=2**31 - 1)] = 32,
    device: Device = "cpu",
    unit: Unit = None,
    allow_unseen_elements: AllowUnseen = False,
    overwrite: Overwrite = False,
):
    """Write predictions for the structures of a file.

    Energies of structures and atoms in eV, forces in eV/Ang, stress in eV/Ang^3; other targets in their own units.
    """
    from .._files import check_output
    from ..data import read_structures
    from ..data.labels import parse_keys
    from ..training.predict import predict, write_structures

    with errors_in_one_line():
        check_output(out, overwrite)
        potential = loaded(checkpoint, device, unit)
        found = read_structures(structures)
        names = parse_keys(keys)
        predicted = predict(potential, found, batch_size, forces, names, str(structures), allow_unseen_elements)
        write_structures(out, predicted)
        print(f"{len(predicted)} structures in {out}")
