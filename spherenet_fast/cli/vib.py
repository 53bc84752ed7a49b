"""spherenet-fast vib."""

from pathlib import Path
from typing import Annotated

import typer

from ._common import Checkpoint, Device, Frame, Minimum, Overwrite, Unit, errors_in_one_line, loaded


def vib(
    checkpoint: Checkpoint,
    structure: Minimum,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write all that is printed: .csv (the modes) or .json.",
                                  show_default="none")
    ] = None,
    modes: Annotated[
        Path | None, typer.Option(help="Folder for a file of each mode's motion, extended XYZ.", show_default="none")
    ] = None,
    relax: Annotated[bool, typer.Option("--relax", help="Relax the structure first.")] = False,
    fmax: Annotated[float, typer.Option(min=0, help="eV/Ang, largest force after --relax.")] = 0.001,
    steps: Annotated[int, typer.Option(min=0, help="Of --relax, at most.")] = 500,
    atoms: Annotated[
        str | None, typer.Option(metavar="NUMBER,...", help="Atoms that vibrate, from 0.",
                                 show_default="all that are not fixed")
    ] = None,
    frame: Frame = None,
    temperature: Annotated[float, typer.Option(help="K.")] = 298.15,
    pressure: Annotated[float, typer.Option(help="Pa, of a molecule as an ideal gas.")] = 100_000,
    symmetry_number: Annotated[int, typer.Option(min=1, help="Rotations that bring the molecule onto itself.")] = 1,
    spin: Annotated[float, typer.Option(min=0, help="Of all electrons: 0.5 of a radical.")] = 0,
    dtype: Annotated[str, typer.Option(help="float32 or float64, to compute in.")] = "float64",
    device: Device = "cpu",
    unit: Unit = None,
    overwrite: Overwrite = False,
):  # fmt: skip
    """Harmonic frequencies by the exact Hessian, zero-point energy and thermochemistry of one structure."""
    import math

    from .._files import check_output, write_file
    from ..calculators.ase import SphereNetCalculator
    from ..dynamics.structures import starting_structure
    from ..dynamics.vibrations import thermochemistry, vibrations

    with errors_in_one_line():
        for name, value in {"temperature": temperature, "pressure": pressure, "fmax": fmax}.items():
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"--{name}: expected a number above 0, got {value:g}")
        if out is not None:
            if out.suffix not in (".csv", ".json"):
                raise ValueError(f"--out: expected a name that ends in .csv or .json, got {out.name!r}")
            check_output(out, overwrite)
        start, chosen = starting_structure(structure, frame), _numbers(atoms)
        calculator = SphereNetCalculator(loaded(checkpoint, device, unit, dtype))
        found = vibrations(calculator, start, chosen, relax, fmax, steps)
        frequencies, energies = found.frequencies(), found.energies()
        zero_point, imaginary = found.zero_point_energy(), int((energies < 0).sum())
        print(f"{found.atoms.symbols}, {len(found.atoms)} atoms: {found.energy:.6f} eV, "
              f"largest force {found.fmax:.2g} eV/Ang")  # fmt: skip
        print("mode      1/cm       meV")
        for number, (frequency, energy) in enumerate(zip(frequencies, energies)):
            print(f"{number:4} {abs(frequency):9.2f}{'i' if frequency < 0 else ' '}{1000 * abs(energy):9.3f}")
        print(f"zero-point energy {zero_point:.6f} eV" + (f"; {imaginary} imaginary modes" if imaginary else ""))
        quantities = {}
        if not imaginary:
            quantities = thermochemistry(found, temperature, pressure, symmetry_number, spin)
            kind = "vibrations alone"
            if found.geometry is not None:
                kind = (
                    f"ideal gas at {pressure:g} Pa, {found.geometry}, symmetry number {symmetry_number}, spin {spin:g}"
                )
            print(f"{temperature:g} K, {kind}")
            for name, value in quantities.items():
                print(f"{name:20} {value:16.6f} eV{'/K' if name.startswith('entropy') else ''}")
        if out is not None:
            write_file(out, _text(found, out.suffix, quantities, temperature, pressure).encode())
        if modes is not None:
            _write_modes(found, modes, temperature)


def _numbers(text: str | None) -> list[int] | None:
    try:
        return None if text is None else [int(number) for number in text.split(",")]
    except ValueError:
        raise ValueError(f"--atoms: expected numbers with commas between them, got {text!r}") from None


def _text(found, suffix: str, quantities: dict, temperature: float, pressure: float) -> str:
    import json

    frequencies, energies = found.frequencies().tolist(), (1000 * found.energies()).tolist()
    if suffix == ".csv":
        rows = [f"{number},{one!r},{other!r}\n" for number, (one, other) in enumerate(zip(frequencies, energies))]
        return "".join(["mode,frequency_cm1,energy_meV\n", *rows])
    facts = {
        "energy_eV": found.energy, "largest_force_eV_per_Ang": found.fmax, "geometry": found.geometry,
        "frequencies_cm1": frequencies, "zero_point_energy_eV": found.zero_point_energy(),
        "temperature_K": temperature, "pressure_Pa": pressure if found.geometry else None,
        "thermochemistry_eV": quantities,
    }  # fmt: skip
    return json.dumps(facts, indent=2) + "\n"


def _write_modes(found, folder: Path, temperature: float) -> None:
    """One period of each mode, with the amplitude that it has at a temperature."""
    from ase.units import kB

    from ..training.predict import write_structures

    folder.mkdir(parents=True, exist_ok=True)
    for number, mode in enumerate(found.vibrating):
        frames = list(found.data.iter_animated_mode(int(mode), temperature=kB * temperature, frames=30))
        write_structures(folder / f"mode-{number:03}.extxyz", frames)
    print(f"{len(found.vibrating)} modes in {folder}")
