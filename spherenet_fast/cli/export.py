"""spherenet-fast export."""

from pathlib import Path
from typing import Annotated

import typer

from ._common import Checkpoint, Device, Dtype, Overwrite, Unit, errors_in_one_line, loaded


def export(
    checkpoint: Checkpoint,
    to: Annotated[
        str, typer.Option("--to", help="pt2: PyTorch 2, for C++ and Python; metatomic: for engines that speak it.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write, model.pt2 or model.pt.")],
    extensions: Annotated[
        Path | None,
        typer.Option(help="Folder for metatomic's library of operators.", show_default="extensions, beside --out"),
    ] = None,
    dtype: Dtype = None,
    device: Device = "cpu",
    unit: Unit = None,
    overwrite: Overwrite = False,
):
    """Write a trained model as a file that runs without this package: energies (eV), forces and stress."""
    from .._files import check_output
    from .._library import loaded_path

    with errors_in_one_line():
        if to not in ("pt2", "metatomic"):
            raise ValueError(f"--to: expected pt2 or metatomic, got {to!r}")
        check_output(out, overwrite)
        if to == "pt2" and extensions is not None:
            raise ValueError("--extensions: expected it with --to metatomic alone, got it with --to pt2")
        potential = loaded(checkpoint, device, unit, dtype)
        if to == "pt2":
            from ..export.pt2 import export_pt2

            export_pt2(potential, out, unit)
            print(f"{out}, to be loaded after the operators in {loaded_path()}")
            return
        try:
            from ..export.metatomic import export_metatomic, library_copy
        except ImportError as error:
            raise ValueError(f"--to metatomic: {error}") from error
        folder = out.parent / "extensions" if extensions is None else extensions
        copy = library_copy(folder)
        if copy.is_file() and copy.read_bytes() != loaded_path().read_bytes():
            check_output(copy, overwrite)
        export_metatomic(potential, out, folder, unit)
        print(f"{out}, to be loaded with the extensions directory {folder}")
