"""Units of labels and lengths: a small table, with the numbers of ``ase.units`` (CODATA 2014)."""

_BOHR = 0.5291772105638411  # Å
_HARTREE = 27.211386024367243  # eV
_KCAL_PER_MOL = 0.04336410390059322  # eV
_KJ_PER_MOL = 0.010364269574711572  # eV

# Name -> (dimension, size in the dimension's base unit). Energies are in eV, as everywhere in ASE.
UNITS = {
    "eV": ("energy", 1.0),
    "meV": ("energy", 1e-3),
    "Hartree": ("energy", _HARTREE),
    "mHartree": ("energy", 1e-3 * _HARTREE),
    "Rydberg": ("energy", 13.605693012183622),
    "kcal/mol": ("energy", _KCAL_PER_MOL),
    "kJ/mol": ("energy", _KJ_PER_MOL),
    "cm^-1": ("energy", 0.0001239841973964072),
    "D": ("dipole moment", 0.20819433442462576),
    "e*Ang": ("dipole moment", 1.0),
    "e*Bohr": ("dipole moment", _BOHR),
    "Ang^2": ("area", 1.0),
    "Bohr^2": ("area", _BOHR**2),
    "Ang^3": ("volume", 1.0),
    "Bohr^3": ("volume", _BOHR**3),
    "cal/mol/K": ("heat capacity", 1e-3 * _KCAL_PER_MOL),
    "J/mol/K": ("heat capacity", 1e-3 * _KJ_PER_MOL),
    "eV/K": ("heat capacity", 1.0),
    "GHz": ("frequency", 1.0),
    "Ang": ("length", 1.0),
    "Bohr": ("length", _BOHR),
    "nm": ("length", 10.0),
    "pm": ("length", 0.01),
    "eV/Ang^3": ("pressure", 1.0),
    "GPa": ("pressure", 0.006241509125883258),
    "kbar": ("pressure", 0.0006241509125883258),
}

_SPELLINGS = {name.lower(): name for name in UNITS} | {
    "ha": "Hartree",
    "eh": "Hartree",
    "ry": "Rydberg",
    "debye": "D",
    "a0^2": "Bohr^2",
    "a0^3": "Bohr^3",
    "ev*k^-1": "eV/K",
    "angstrom": "Ang",
    "a": "Ang",
    "\N{LATIN SMALL LETTER A WITH RING ABOVE}": "Ang",
    "a0": "Bohr",
}
_ATOMIC_UNITS = {"energy": "Hartree", "length": "Bohr"}  # what "au" is, where the dimension is known


def unit_name(unit: str, dimension: str | None = None) -> str:
    """The table's spelling of `unit` (``"ev"`` -> ``"eV"``).

    Raises:
        ValueError: the unit is not in the table, or not one of `dimension` ("energy", "length", ...).
    """
    known = [name for name in UNITS if dimension in (None, UNITS[name][0])]
    lower = unit.strip().lower()
    name = _SPELLINGS.get(lower)
    if dimension in _ATOMIC_UNITS and lower in ("au", "a.u."):
        name = _ATOMIC_UNITS[dimension]
    if name not in known:
        raise ValueError(f"unit: expected one of {', '.join(known)}, got {unit!r}")
    return name


def force_units(unit: str) -> tuple[str, str]:
    """The units of energy and length in a unit of forces (``"kcal/mol/Ang"`` -> ``("kcal/mol", "Ang")``).

    Raises:
        ValueError: it is not an energy over a length, both in the table.
    """
    if unit.strip().lower() in ("au", "a.u."):
        unit = "Hartree/Bohr"
    energy, _, length = unit.rpartition("/")
    try:
        return unit_name(energy, "energy"), unit_name(length, "length")
    except ValueError:
        raise ValueError(f"unit: expected an energy over a length, as eV/Ang, got {unit!r}") from None


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
