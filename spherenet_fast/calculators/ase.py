"""SphereNet as an ASE calculator."""

import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any
from weakref import WeakSet

import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from torch import nn

from .._devices import usable_device
from ..data.formats.ase_files import from_atoms
from ..data.targets import QM9_TARGETS, is_total_energy
from ..data.units import conversion, is_energy
from ..nn.framework import GraphNetwork3D
from ..training.potential import Potential

_warned_paths: set[Any] = set()  # of Path
_warned_potentials: WeakSet[Any] = WeakSet()


class SphereNetCalculator(Calculator):
    """Energies (eV) and forces (eV/Å) of molecules and periodic cells, and the stress (eV/Å^3) of the latter.

    The stress is ASE's: xx, yy, zz, yz, xz, xy, positive under tension. Structures with an open direction have one too,
    of their whole cell, vacuum included, if its three vectors span a volume.

    Results do not depend on where a structure lies, nor on the cells in which its atoms do: positions are moved to the
    origin, or by whole cells, before they are rounded to the model's precision.

    The energy of a SphereNet with the paper's torsion (``model.torsion=paper``) jumps where one neighbor overtakes
    another as the reference of a torsion, or crosses the cutoff; no force belongs to a jump. In dynamics of
    paracetamol, in steps of 0.5 fs, single steps changed the total energy by up to 110 meV, and it drifted by 343
    meV/ps. Relaxations may not reach a small fmax. A UserWarning says so, once per potential; smooth torsions, the
    default, have no such jumps.

    Args:
        potential: a `Potential`, the path of a checkpoint (``best.ckpt`` of a training run), or a model.
        device: "cpu", "cuda", ...; default: where the potential is, the CPU for a checkpoint.
        unit: unit of the energy where the potential does not know its own (of a model: eV). It also states that the
            potential's target is the energy where that has another name.
        shift, scale: of a model: its energies are shift + scale * model(data). shift is a number for a structure
            (default 0) or {symbol: energy of an atom}; scale is positive (default 1).

    Examples::

        atoms.calc = SphereNetCalculator("runs/ethanol/best.ckpt")
        atoms.calc = SphereNetCalculator(model, shift={"C": -1029.0, "H": -13.6}, scale=0.7)  # of one's own loop
        atoms.calc = SphereNetCalculator(Potential.fit(model, train_data))  # the two from the data
        atoms.get_potential_energy()

    Raises:
        FileNotFoundError, ValueError: see `Potential.load`; or the potential predicts something else than one energy,
            or its unit is unknown. `calculate` raises ValueError for an element that was not in the training set, and
            PropertyNotImplementedError for the stress of a molecule, or of a cell with fewer than three vectors.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]

    def __init__(
        self,
        potential: Potential | GraphNetwork3D | str | PathLike,
        device: str | torch.device | None = None,
        unit: str | None = None,
        *,
        shift: Any = None,
        scale: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        source = potential
        if isinstance(potential, GraphNetwork3D):
            shift, scale = 0.0 if shift is None else shift, 1.0 if scale is None else scale
            potential = source = Potential.wrap(potential, shift, scale, unit or "eV")
            unit = None
        elif shift is not None or scale is not None:
            raise ValueError("shift, scale: expected none but with a model, as a potential has its own, got some")
        if isinstance(potential, nn.Module) and not isinstance(potential, Potential):
            came = type(potential).__name__
            raise TypeError(f"potential: expected a Potential, a GraphNetwork3D or a path, got {came}")
        if not isinstance(potential, Potential):
            potential = Potential.load(potential, device or "cpu")
        elif device is not None:
            potential.to(usable_device(device))
        _warn_of_jumps(potential, source)
        self.potential = potential.eval()
        self._factor = energy_factor(potential, unit)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        molecules = from_atoms([self.atoms], dtype=next(self.potential.parameters()).dtype, labels=False)
        self.potential.check_elements(molecules.z)
        batch = molecules[0].to(self.potential.scale.device)
        if "stress" in properties:
            self._check_cell()
            energy, forces, stress = self.potential.in_units(
                batch, *self.potential.recorded.energy_forces_stress(batch)
            )
            self.results["stress"] = full_3x3_to_voigt_6_stress(self._factor * stress[0].double().cpu().numpy())
            self.results["forces"] = self._factor * forces.double().cpu().numpy()
        elif "forces" in properties:
            energy, forces = self.potential.in_units(batch, *self.potential.recorded.energy_and_forces(batch))
            self.results["forces"] = self._factor * forces.double().cpu().numpy()
        else:
            with torch.no_grad():
                energy = self.potential(batch)
        self.results["energy"] = self.results["free_energy"] = self._factor * energy.item()

    def _check_cell(self) -> None:
        pbc, cell = self.atoms.pbc, self.atoms.cell
        if not pbc.any() or cell.rank < 3:
            raise PropertyNotImplementedError(
                "stress: expected atoms that repeat, in a cell of three vectors, "
                f"got pbc {pbc.tolist()} and cell {cell.tolist()}"
            )


def _warn_of_jumps(potential: Potential, source: Any) -> None:
    """Warn, once in a process for a potential, of one with the paper's torsion. source: the potential, or its path."""
    if getattr(potential.model, "torsion", None) != "paper":
        return
    known, key = (_warned_potentials, potential) if source is potential else (_warned_paths, Path(source).resolve())
    if key in known:
        return
    known.add(key)
    warnings.warn(
        "the energy of a model with the paper's torsion jumps as atoms move, by up to 110 meV in a step of 0.5 fs "
        "(paracetamol), without a force: for dynamics and relaxations train with model.torsion=smooth",
        stacklevel=3,
    )


def energy_factor(potential: Potential, unit: str | None = None) -> float:
    """eV per unit of the potential's energy.

    Raises:
        ValueError: it predicts something else than one energy, or its unit is unknown and `unit` is not given.
    """
    if len(potential.names) != 1:
        raise ValueError(f"potential: expected one that predicts an energy alone, got {', '.join(potential.names)}")
    said, unit = unit, potential.units[0] or unit
    if unit is None:
        raise ValueError("unit: expected the unit of the energy, which the potential does not know, got none")
    stated = said and is_energy(unit) and potential.names[0] not in QM9_TARGETS
    if not (is_total_energy(potential.names[0], unit) or stated):
        raise ValueError(
            f"potential: expected one that predicts an energy, got {potential.names[0]} in {unit}; if that is the "
            "energy, unit='eV' says so (and in training data.keys)"
        )
    return conversion(unit, "eV")
