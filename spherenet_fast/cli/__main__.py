"""`python -m spherenet_fast.cli` is the command where the package is not installed."""

from . import app

app()
