"""What is known about QM9's targets: names, units, and how they grow with the molecule."""

from typing import NamedTuple

from .units import is_energy


class TargetInfo(NamedTuple):
    """Facts about one QM9 target."""

    unit: str  # of QM9's own files
    report: str  # the unit in which the literature reports errors
    extensive: bool  # a sum over atoms to first order, so per-element references make sense


# U0, U, H and G are total energies. Subtracting free atoms (QM9's "atomization" energies, `*_atom`) changes them by a
# constant per element, exactly what the fitted references absorb: the mean absolute error is the same number.
QM9_TARGETS = {
    "mu": TargetInfo("D", "D", False),
    "alpha": TargetInfo("Bohr^3", "Bohr^3", True),
    "homo": TargetInfo("Hartree", "meV", False),
    "lumo": TargetInfo("Hartree", "meV", False),
    "gap": TargetInfo("Hartree", "meV", False),
    "r2": TargetInfo("Bohr^2", "Bohr^2", False),
    "zpve": TargetInfo("Hartree", "meV", True),
    "U0": TargetInfo("Hartree", "meV", True),
    "U": TargetInfo("Hartree", "meV", True),
    "H": TargetInfo("Hartree", "meV", True),
    "G": TargetInfo("Hartree", "meV", True),
    "Cv": TargetInfo("cal/mol/K", "cal/mol/K", True),
    "U0_atom": TargetInfo("kcal/mol", "meV", True),
    "U_atom": TargetInfo("kcal/mol", "meV", True),
    "H_atom": TargetInfo("kcal/mol", "meV", True),
    "G_atom": TargetInfo("kcal/mol", "meV", True),
    "A": TargetInfo("GHz", "GHz", False),
    "B": TargetInfo("GHz", "GHz", False),
    "C": TargetInfo("GHz", "GHz", False),
}

# Energies of the free atoms in Hartree (QM9's atomref.txt), by atomic number. The standard deviation of U0, U, H and G
# that the literature divides by is the one without them.
FREE_ATOMS = {
    "U0": {1: -0.500273, 6: -37.846772, 7: -54.583861, 8: -75.064579, 9: -99.718730},
    "U": {1: -0.498857, 6: -37.845355, 7: -54.582445, 8: -75.063163, 9: -99.717314},
    "H": {1: -0.497912, 6: -37.844411, 7: -54.581501, 8: -75.062219, 9: -99.716370},
    "G": {1: -0.510927, 6: -37.861317, 7: -54.598897, 8: -75.079532, 9: -99.733544},
}

# A, B and C stay apart from the lower-case names: nothing else is called a, b or c.
_SPELLINGS = {name.lower(): name for name in QM9_TARGETS} | {
    "u298": "U",
    "h298": "H",
    "g298": "G",
    "u298_atom": "U_atom",
    "h298_atom": "H_atom",
    "g298_atom": "G_atom",
}


def canonical_target(name: str) -> str:
    """QM9's usual spelling of a target (``"u298"`` -> ``"U"``); any other name comes back unchanged."""
    return _SPELLINGS.get(name.strip().lower(), name)


def is_total_energy(name: str, unit: str | None) -> bool:
    """Whether the target is the energy of the whole molecule, whose negative gradient is a force.

    U0, U, H and G, total or minus free atoms, and every name that starts with "energy"; the unit must be an energy's
    or unknown.
    """
    name = canonical_target(name)
    if unit is not None and not is_energy(unit):
        return False
    return name.removesuffix("_atom") in FREE_ATOMS or name.lower().startswith("energy")


def is_extensive(name: str) -> bool:
    """Whether per-element references suit the target: QM9's table, otherwise True for anything called an energy.

    A gap or an orbital energy has an energy's unit too, so only names tell: unknown ones that do not start with
    "energy" count as intensive.
    """
    info = QM9_TARGETS.get(canonical_target(name))
    if info is not None:
        return info.extensive
    return name.lower().startswith("energy")
