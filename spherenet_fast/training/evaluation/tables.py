"""Errors as a table: in several units, per atom, and by element."""

from torch import Tensor

from ...data.targets import is_extensive
from ...data.units import conversion, is_energy
from ..metrics import aligned, within_lines
from ..potential import Potential
from .predictions import Predictions

ENERGIES = ("meV", "kcal/mol")
PER_LENGTH = "/Ang"  # what the unit of forces has besides an energy's


def detailed_table(potential: Potential, found: Predictions) -> str:
    """MAE and RMSE of every target.

    Energies are in the unit of the potential, in meV and in kcal/mol, total ones per atom, too; forces the same, and by
    element. What is within a limit (EwT) follows in per cent.
    """
    rows = [("target", "MAE", "RMSE", "unit")]
    units = potential.all_units()
    error = found.y - found.y_label
    for column, name in enumerate(potential.names):
        unit, known = units[name], ~error[:, column].isnan()
        rows += _rows(name, error[known, column], unit, [unit, *ENERGIES])
        if unit is not None and is_energy(unit) and is_extensive(name):
            rows += _rows(f"{name} per atom", (error[:, column] / found.n_atoms)[known], unit, ENERGIES)
    if found.forces_error is not None:
        unit = potential.all_units()["forces"]
        rows += _rows("forces", found.forces_error, unit, [unit, *(energy + PER_LENGTH for energy in ENERGIES)])
        rows += _by_element(found, unit)
    if found.stress_error is not None:
        rows += _stress_rows(found.stress_error, units["stress"], units[potential.names[0]])
    return "\n".join([aligned(rows), *within_lines(potential, found.errors(potential))])


def _rows(name: str, error: Tensor, unit: str | None, shown) -> list[tuple[str, str, str, str]]:
    """A row for each unit of `shown`, once; of errors that are no energies, or forces, one in their own unit."""
    energy = None if unit is None else unit.removesuffix(PER_LENGTH)
    if energy is None or not is_energy(energy):
        shown = [unit]
    rows = []
    for other in dict.fromkeys(shown):
        factor = 1.0 if other == unit else conversion(energy, other.removesuffix(PER_LENGTH))
        mae, rmse = factor * float(error.abs().mean()), factor * float(error.square().mean().sqrt())
        rows.append(("" if rows else name, f"{mae:.5g}", f"{rmse:.5g}", other or "as in the data"))
    return rows


def _stress_rows(error: Tensor, unit: str | None, energy: str | None) -> list[tuple[str, str, str, str]]:
    """Errors of the stress [b, 6], in GPa, too, where its unit is known."""
    rows = _rows("stress", error, None, [None])
    rows = [(*rows[0][:3], unit or rows[0][3])]
    if energy is not None and is_energy(energy):
        factor = conversion(energy, "eV") * conversion("eV/Ang^3", "GPa")
        rows += [("", *row[1:3], "GPa") for row in _rows("stress", factor * error, None, [None])]
    return rows


def _by_element(found: Predictions, unit: str | None) -> list[tuple[str, str, str, str]]:
    """Errors of forces on the atoms of every element, if there are several."""
    from ase.data import chemical_symbols

    z, rows = found.z[found.free], []
    numbers = z.unique().tolist()
    for number in numbers if len(numbers) > 1 else ():
        error = found.forces_error[z == number]
        rows += _rows(f"forces on {chemical_symbols[number]}", error, unit, [ENERGIES[0] + PER_LENGTH])
    return rows
