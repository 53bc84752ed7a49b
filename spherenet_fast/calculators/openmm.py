"""SphereNet in OpenMM, from version 8.6 on: `system.addForce(spherenet_force("runs/ethanol/best.ckpt", topology))`."""

from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Any

import numpy as np
import openmm
import torch
from openmm import unit as units

from ..data.units import conversion
from ..nn.framework import GraphNetwork3D
from ..training.potential import Potential
from .evaluator import Evaluator

_LENGTH, _ENERGY = conversion("nm", "Ang"), conversion("eV", "kJ/mol")


def spherenet_force(
    potential: Potential | GraphNetwork3D | str | PathLike,
    atoms: Any,
    periodic: bool | None = None,
    particles: Sequence[int] | None = None,
    device: str | torch.device | None = None,
    unit: str | None = None,
) -> openmm.PythonForce:
    """The energy of the particles of a `System`, or of some of them, as a force that `System.addForce` takes.

    OpenMM's `XmlSerializer` writes it with the whole checkpoint, so that the XML can be read where the file is not, if
    spherenet_fast is installed there. Energies and forces are evaluated once for given positions, also where a reporter
    asks for them again after a step. A barostat works as it does with any force.

    Args:
        potential, device, unit: as of `SphereNetCalculator`; `unit` is that of the potential's energy.
        atoms: an `openmm.app.Topology`, or the atomic numbers of all particles of the system.
        periodic: whether the particles repeat with the box; default: whether the topology has one.
        particles: indices of the particles that are evaluated, alone, as in a mixed simulation; default: all.

    Raises:
        FileNotFoundError, TypeError: as `SphereNetCalculator`.
        ValueError: as `SphereNetCalculator`, or a particle has no element, or one that was not in the training set, or
            `particles` holds none, or one that is not among the atoms. When it is evaluated, OpenMM says with an error
            of its own where the system has not as many particles as there are atoms.
    """
    numbers = atomic_numbers(atoms)
    if particles is not None:
        particles = list(particles)
        if not particles or not all(0 <= particle < len(numbers) for particle in particles):
            raise ValueError(f"particles: expected some numbers from 0 to {len(numbers) - 1}, got {particles}")
        numbers = [numbers[particle] for particle in particles]
    if periodic is None:
        periodic = hasattr(atoms, "getPeriodicBoxVectors") and atoms.getPeriodicBoxVectors() is not None
    force = openmm.PythonForce(_Computation(Evaluator(potential, device, unit), numbers, periodic))
    force.setName("SphereNet")
    force.setUsesPeriodicBoundaryConditions(periodic)
    if particles is not None:
        force.setParticles(particles)
    return force


def atomic_numbers(atoms: Any) -> list[int]:
    """Of a topology, or the numbers as they are. Raises ValueError for an atom without an element."""
    if not hasattr(atoms, "atoms"):
        return [int(number) for number in atoms]
    for atom in atoms.atoms():
        if atom.element is None:
            raise ValueError(f"atoms: expected an element for each atom of the topology, got none for {atom}")
    return [atom.element.atomic_number for atom in atoms.atoms()]


class _Computation:
    """What `PythonForce` calls with a state: energy in kJ/mol and forces [N, 3] in kJ/mol/nm."""

    def __init__(self, evaluate: Evaluator, numbers: Iterable[int], periodic: bool):
        self.evaluate, self.periodic = evaluate, periodic
        self.z = torch.tensor(list(numbers), dtype=torch.int64)
        evaluate.potential.check_elements(self.z)
        self._known: tuple | None = None  # positions, box, energy, forces

    def __call__(self, state: Any) -> tuple[float, np.ndarray]:
        pos = _LENGTH * state.getPositions(asNumpy=True).value_in_unit(units.nanometer)
        if len(pos) != len(self.z):
            raise ValueError(f"atoms: expected as many as the system has particles, {len(pos)}, got {len(self.z)}")
        box = None
        if self.periodic:
            box = _LENGTH * state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(units.nanometer)
        if self._known and np.array_equal(pos, self._known[0]) and (box is None or np.array_equal(box, self._known[1])):
            return self._known[2:]
        cell = None if box is None else torch.from_numpy(box)[None]
        found = self.evaluate(self.z, torch.from_numpy(pos), torch.tensor([len(pos)]), cell)
        energy, forces = _ENERGY * found.energy.item(), _ENERGY * _LENGTH * found.forces.cpu().numpy()
        self._known = pos, box, energy, forces
        return energy, forces

    def __getstate__(self) -> dict:
        return {**vars(self), "_known": None}
