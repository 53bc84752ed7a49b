"""spherenet-fast predict."""

from pathlib import Path
from typing import Annotated

import typer

from ._common import AllowUnseen, Device, Overwrite, Structures, Unit, errors_in_one_line, loaded


def predict(
    checkpoint: Annotated[
        list[Path],
        typer.Argument(
            help="best.ckpt of a run, or a name, as md17-ethanol; several, or the folder of --seeds: mean and variance."
        ),
    ],
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

    Energies of structures and atoms in eV, forces in eV/Ang, stress in eV/Ang^3; other targets in their own units. Of
    several checkpoints the means, and as energy_var, forces_var, ... the variances over them (eV^2, ...).
    """
    from .._files import check_output
    from ..calculators.committee import Committee, members, spread
    from ..data import read_structures
    from ..data.labels import parse_keys
    from ..training.predict import predict, write_structures

    with errors_in_one_line():
        check_output(out, overwrite)
        names = parse_keys(keys)
        checkpoints = [member for path in checkpoint for member in members(path)]
        if len(checkpoints) > 1 and names:
            raise ValueError(f"--keys: expected none with several checkpoints, got {' '.join(keys)}")
        potentials = [loaded(path, device, unit) for path in checkpoints]
        found = read_structures(structures)
        if len(potentials) > 1:
            committee = Committee(potentials, allow_unseen_elements=allow_unseen_elements)
            wanted = {"energy", "energies", *(("forces", "stress") if forces else ())}
            predicted = committee.evaluate(found, wanted & set(committee.implemented_properties), batch_size)
        else:
            predicted = predict(potentials[0], found, batch_size, forces, names, str(structures), allow_unseen_elements)
        write_structures(out, predicted)
        print(f"{len(predicted)} {'structure' if len(predicted) == 1 else 'structures'} in {out}")
        if len(potentials) > 1:
            print(f"spread over {len(potentials)} models: {spread(predicted)}")
