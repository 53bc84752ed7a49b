"""Numbers of a file in the units that it, or the user, states."""

from dataclasses import replace

from .molecules import Molecules
from .targets import canonical_target, is_total_energy
from .units import conversion, force_units, unit_name


def in_stated_units(molecules: Molecules, stated: dict[str, str]) -> Molecules:
    """Read the numbers of `molecules` as being in other units: positions and cells become Å, forces the energy's per Å.

    Args:
        molecules: with positions, cells and forces as they are stored.
        stated: {"length": unit} of positions and cells, else Å; {"forces": unit}, as "eV/Ang", else the unit of the
            target "energy" over that of the length; {"stress": unit}, as "GPa", else that of the energy over the
            length's to the third; {name: unit} of any target, else as in `molecules`.

    Raises:
        ValueError: a unit is unknown or measures something else, there is no such target, or the unit of the forces is
            stated and that of the energy is not known.
    """
    if not stated:
        return molecules
    stated = {canonical_target(name): unit for name, unit in stated.items()}
    names = [canonical_target(name) for name in molecules.names]
    units = dict(zip(names, molecules.units, strict=True))
    length, of_forces, of_stress = "Ang", None, None
    for name, unit in stated.items():
        try:
            if name == "length":
                length = unit_name(unit, "length")
            elif name == "forces":
                of_forces = force_units(unit)
            elif name == "stress":
                of_stress = unit_name(unit, "pressure")
            elif name in units:
                units[name] = unit_name(unit, "energy" if is_total_energy(name, None) else None)
            else:
                raise ValueError(f"expected some of {', '.join(['length', 'forces', 'stress', *names])}, got {name!r}")
        except ValueError as error:
            raise ValueError(f"file_units.{name}: {str(error).removeprefix('unit: ')}") from None
    scale = conversion(length, "Ang")
    forces = molecules.forces
    if forces is not None and of_forces is None:
        forces = forces / scale
    elif forces is not None:
        energy_unit, length_unit = of_forces
        if units.get("energy", energy_unit) is None:
            text = f"expected a unit, as the forces have one ({energy_unit}/{length_unit}), got none"
            raise ValueError(f"file_units.energy: {text}")
        forces = forces * (conversion(energy_unit, units.get("energy", energy_unit)) / conversion(length_unit, "Ang"))
    stress = molecules.stress
    if stress is not None and of_stress is None:
        stress = stress / scale**3
    elif stress is not None:
        if units.get("energy") is None:
            raise ValueError(f"file_units.energy: expected a unit, as the stress has one ({of_stress}), got none")
        stress = stress * (conversion(of_stress, "eV/Ang^3") * conversion("eV", units["energy"]))
    return replace(
        molecules,
        stress=stress,
        pos=molecules.pos * scale,
        cell=None if molecules.cell is None else molecules.cell * scale,
        forces=forces,
        units=tuple(units[name] for name in names),
    )
