"""The command ``spherenet-fast``: one file for each of its commands, which import what they need when they run."""

from typing import Annotated

import typer

from .. import __version__
from .._freed_memory import keep_freed_memory
from .check import check
from .configs import init, options
from .evaluate import evaluate
from .export import export
from .info import info
from .md import md
from .pictures import filters, geometry
from .predict import predict
from .relax import relax
from .sample import sample
from .train import train
from .vib import vib

app = typer.Typer(
    help="SphereNet: train on molecules, evaluate, predict, relax, move, export, draw.", no_args_is_help=True,
    add_completion=False, pretty_exceptions_enable=False,
)  # fmt: skip


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


for command in (
    sample, init, options, train, evaluate, predict, relax, check, vib, md, export, filters, geometry, info
):  # fmt: skip
    app.command()(command)
