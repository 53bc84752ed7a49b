"""Units of the labels: a small table on top of ``ase.units``."""

from ase import units

# Name -> (dimension, size in the dimension's base unit). Energies are in eV, as everywhere in ASE.
UNITS = {
    "eV": ("energy", 1.0),
    "meV": ("energy", 1e-3),
    "Hartree": ("energy", units.Hartree),
    "mHartree": ("energy", 1e-3 * units.Hartree),
    "Rydberg": ("energy", units.Rydberg),
    "kcal/mol": ("energy", units.kcal / units.mol),
    "kJ/mol": ("energy", units.kJ / units.mol),
    "cm^-1": ("energy", units.invcm),
    "D": ("dipole moment", units.Debye),
    "e*Ang": ("dipole moment", 1.0),
    "e*Bohr": ("dipole moment", units.Bohr),
    "Ang^2": ("area", 1.0),
    "Bohr^2": ("area", units.Bohr**2),
    "Ang^3": ("volume", 1.0),
    "Bohr^3": ("volume", units.Bohr**3),
    "cal/mol/K": ("heat capacity", 1e-3 * units.kcal / units.mol),
    "J/mol/K": ("heat capacity", 1e-3 * units.kJ / units.mol),
    "eV/K": ("heat capacity", 1.0),
    "GHz": ("frequency", 1.0),
}

_SPELLINGS = {name.lower(): name for name in UNITS} | {
    "ha": "Hartree",
    "debye": "D",
    "a0^2": "Bohr^2",
    "a0^3": "Bohr^3",
    "ev*k^-1": "eV/K",
}


def unit_name(unit: str) -> str:
    """The table's spelling of `unit` (``"ev"`` -> ``"eV"``). ValueError for a unit that is not in the table."""
    try:
        return _SPELLINGS[unit.strip().lower()]
    except KeyError:
        raise ValueError(f"unit: expected one of {', '.join(UNITS)}, got {unit!r}") from None


def is_energy(unit: str | None) -> bool:
    """Whether `unit` is a known energy unit."""
    return unit is not None and UNITS[unit_name(unit)][0] == "energy"


def conversion(from_unit: str, to_unit: str) -> float:
    """The factor that turns a number in `from_unit` into one in `to_unit`.

    Raises:
        ValueError: a unit is unknown, or the two measure different things.
    """
    source, target = unit_name(from_unit), unit_name(to_unit)
    if UNITS[source][0] != UNITS[target][0]:
        raise ValueError(
            f"unit: expected {to_unit!r} ({UNITS[target][0]}) to measure the same as the file's unit, "
            f"got {from_unit!r} ({UNITS[source][0]})"
        )
    return UNITS[source][1] / UNITS[target][1]
