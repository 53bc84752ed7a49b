"""What the commands share: options, errors in one line, reading a checkpoint."""

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

KEYS = typer.Option(
    metavar="NAME=LABEL,...", help="Names of labels in the data, as energy=REF_energy,forces=REF_forces."
)
Checkpoint = Annotated[
    Path,
    typer.Argument(help="best.ckpt or last.ckpt of a run; or a name, as md17-ethanol; or hf://owner/repository/file."),
]
Structures = Annotated[Path, typer.Argument(help="Any file of structures that ASE reads.")]
Start = Annotated[Path, typer.Argument(help="Any file that ASE reads, with the structure to start from.")]
Minimum = Annotated[Path, typer.Argument(help="Any file that ASE reads, with a structure at a minimum.")]
Frame = Annotated[
    int | None, typer.Option(help="Structure in the file, from 0; -1 is the last.", show_default="the only one")
]
Device = Annotated[str, typer.Option(help="cpu, cuda, ...")]
Unit = Annotated[str | None, typer.Option(help="Of the checkpoint's energy, where its training data did not say.")]
Dtype = Annotated[str | None, typer.Option(help="float32 or float64, to compute in.", show_default="the checkpoint's")]
AllowUnseen = Annotated[
    bool, typer.Option("--allow-unseen-elements", help="Predict elements that were not in the training set, too.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there already.")]

# Exit codes: 2 the input is wrong or a file cannot be read or written (the message says what); 130 stopped by Ctrl-C,
# 143 by SIGTERM, 128 + its number by another signal, as shells have it; NOT_CONVERGED a relaxation did not converge;
# CHECK_FAILED a check found a number above its limit.
NOT_CONVERGED, CHECK_FAILED = 3, 4


@contextmanager
def errors_in_one_line():
    """Wrong input ends the command with one line and exit code 2, and so do a file that cannot be read or written, and
    a GPU whose memory does not suffice.

    Anything else is a bug and keeps its traceback.
    """
    try:
        yield
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which is not imported for a message
            raise
        print(
            "error: device: expected enough memory on the GPU for a batch; smaller ones "
            "(training.batch_size with training.accumulate, --batch-size) take less, the CPU "
            f"(training.device=cpu, --device cpu) often has more, got {str(error).partition(chr(10))[0]}",
            file=sys.stderr,
        )
        raise typer.Exit(2) from error
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        if isinstance(error, BrokenPipeError) and error.filename is None:
            raise  # whoever read standard output has left, which is no error
        text = f"{error.filename}: {error.strerror}" if getattr(error, "filename", None) else str(error)
        print(f"error: {' '.join(text.split())}", file=sys.stderr)
        raise typer.Exit(2) from error


def check_input_stays(read: Path, written: list[Path], option: str) -> None:
    """ValueError if the file that a command reads is one of those that it writes beside what `option` names."""
    if read.exists() and any(path.exists() and path.samefile(read) for path in written):
        raise ValueError(
            f"{option}: expected another place than that of the input, got {read}, which would be replaced"
        )


def loaded(checkpoint: Path, device: str, unit: str | None, dtype: str | None = None):
    """The potential in a checkpoint, with the unit of its energy where the user states it."""
    from .._devices import usable_device, usable_dtype
    from ..training.potential import Potential

    precision = None if dtype is None else usable_dtype(dtype, "--dtype")
    potential = Potential.load(checkpoint, usable_device(device, "--device"))
    if unit is not None:
        potential.state_unit(unit)
    if precision is not None:
        potential.model.to(precision)  # not the energies of atoms, which are float64 in any case
    return potential
