"""Which labels of some data are learned, and in which units."""

from typing import NamedTuple

from .labels import missing_label
from .targets import canonical_target
from .units import conversion, is_energy, unit_name


class Selection(NamedTuple):
    """T columns of labels, the numbers that bring them to `units`, and whether forces and stress go with them."""

    names: tuple[str, ...]
    units: tuple[str | None, ...]
    columns: tuple[int, ...]
    factors: tuple[float, ...]
    forces: bool
    stress: bool


def selection(molecules, targets, units=None, forces=False, stress=False) -> Selection:
    """The labels `targets` of `molecules`, which has `names`, `units`, `vectors`, `has_forces` and `has_stress`.

    The arguments and the errors are those of `Molecules.choose`, as far as no label is looked at.
    """
    names = [canonical_target(name) for name in targets]
    own = {canonical_target(name): column for column, name in enumerate(molecules.names)}
    for name in names:
        if name not in own:
            without_forces = forces and not molecules.has_forces
            raise ValueError(missing_label("targets", name, molecules.names, molecules.vectors, without_forces))
    if len(set(names)) != len(names):
        raise ValueError(f"targets: expected distinct names, got {', '.join(names)}")
    wanted = {canonical_target(name): unit for name, unit in (units or {}).items()}
    for name in wanted:
        if name not in names:
            raise ValueError(f"units: expected names among the targets {', '.join(names)}, got {name!r}")
    columns = [own[name] for name in names]
    factors, chosen = [], []
    for name, column in zip(names, columns, strict=True):
        given = molecules.units[column]
        unit = wanted.get(name) or given
        if given is None and unit is not None:
            raise ValueError(
                f"file_units.{name}: expected the file's unit, to convert to {unit!r}, got none "
                f"(config key data.file_units.{name}, or evaluate --file-units {name}=UNIT)"
            )
        try:
            factors.append(1.0 if given is None else conversion(given, unit))
            chosen.append(None if unit is None else unit_name(unit))
        except ValueError as error:
            raise ValueError(f"target {name!r}: {error}") from None
    if forces and not molecules.has_forces:
        raise ValueError(missing_label("forces", "forces", molecules.names, molecules.vectors))
    if forces and names != ["energy"]:
        raise ValueError(f"targets: expected ['energy'] alone when training on forces, got {names}")
    if forces and chosen[0] is not None and not is_energy(chosen[0]):
        raise ValueError(f"units.energy: expected an energy unit, got {chosen[0]!r}")
    if stress and not molecules.has_stress:
        raise ValueError("stress: expected labels in the data, as loss.stress_weight is not 0, got none")
    return Selection(tuple(names), tuple(chosen), tuple(columns), tuple(factors), forces, stress)
