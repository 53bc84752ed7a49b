"""spherenet-fast info."""

from pathlib import Path

import typer


def info():
    """Show versions, devices and kernels, and compare these with the reference; for reports of bugs.

    Exit code 1 if the library does not load or a number is wrong.
    """
    from .. import __version__
    from .._environment import device_text, devices, facts, library_facts
    from ..pretrained import names

    lines({"spherenet_fast": f"{__version__}, {Path(__file__).parents[1]}"} | facts())
    try:
        found = library_facts()
    except (ImportError, OSError) as error:
        cause = error.__cause__ if isinstance(error, OSError) else None  # torch's own text does not say what was wrong
        lines({"library": f"FAILED to load: {cause or error}"})
        raise typer.Exit(1) from error
    lines(found | {"weights": ", ".join(names())})
    results = {device_text(device): self_test(device) for device in devices()}
    lines({f"test on {device}": result for device, result in results.items()})
    if any(result.startswith("FAILED") for result in results.values()):
        raise typer.Exit(1)


def lines(facts: dict[str, str]) -> None:
    """Print each in a line of its own."""
    for name, text in facts.items():
        print(f"{name + ':':16} {' '.join(text.split())}", flush=True)


def self_test(device) -> str:
    """Whether the kernels pass on a device, and how large their errors are."""
    from .. import _library
    from ._self_test import TOLERANCE, largest_errors

    if device.type == "cuda" and not _library.has_cuda_kernels():
        return "no CUDA kernels in this library"
    try:
        errors = largest_errors(device)
    except Exception as error:  # whatever a kernel raises is the answer
        return f"FAILED: {type(error).__name__}: {error}"
    passed = all(error < TOLERANCE for error in errors.values())
    text = ", ".join(f"{name} {error:.0e}" for name, error in errors.items())
    return f"{'passed' if passed else 'FAILED'}, relative errors: {text}"
