"""SphereNet as a driver of i-PI, from version 3.3 on: all beads of a step in one call.

i-PI reads drivers of its users from a file, here of two lines, which `<pes_path>` names beside `<pes> custom </pes>`:

    from spherenet_fast.calculators.ipi import SphereNetDriver
    __DRIVER_NAME__, __DRIVER_CLASS__ = "spherenet", "SphereNetDriver"

This module itself cannot be named there: i-PI would load it as "ipi", its own name.
"""

from os import PathLike
from typing import Any

import numpy as np
import torch
from ase.io import read
from ipi.pes.dummy import Dummy_driver
from ipi.utils.units import unit_to_internal, unit_to_user

from ..training.potential import Potential
from .evaluator import Evaluator


class SphereNetDriver(Dummy_driver):
    """Energies, forces and virials in i-PI's units, which are atomic ones.

    Args:
        template: a file that ASE reads, with the elements of the atoms in their order, and the directions in which
            they repeat; positions and cell come from i-PI.
        checkpoint: the path of a checkpoint, or a `Potential`.
        device, unit: as of `SphereNetCalculator`.

    Structures that repeat have a virial; that of molecules in the open is given as 0.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as `SphereNetCalculator`, or an element of the template was not in the training set; in a call: the
            numbers of atoms differ, or a position is not finite.
    """

    def __init__(
        self,
        template: str | PathLike,
        checkpoint: str | PathLike | Potential,
        device: str | None = None,
        unit: str | None = None,
        *args: Any,
        **kwargs: Any,
    ):
        self.evaluate = Evaluator(checkpoint, device, unit)
        atoms = read(template)
        self.z, self.pbc = torch.from_numpy(atoms.numbers).long(), torch.from_numpy(atoms.pbc)
        self.evaluate.potential.check_elements(self.z)
        super().__init__(*args, **kwargs)

    def compute(self, cell: Any, pos: Any) -> Any:
        """(energy, forces [N, 3], virial [3, 3], "") of a structure; of lists of B of them, a list of B.

        Args:
            cell: [3, 3], its vectors are columns, or a list.
            pos: [N, 3], or a list.
        """
        if not isinstance(cell, list):
            return self.compute([cell], [pos])[0]
        atoms = len(self.z)
        if wrong := [len(one) for one in pos if len(one) != atoms]:
            raise ValueError(f"template: expected as many atoms as i-PI has, {wrong[0]}, got {atoms}")
        count, repeats = len(pos), bool(self.pbc.any())
        cells = unit_to_user("length", "angstrom", np.stack(cell).swapaxes(1, 2))
        found = self.evaluate(
            self.z.repeat(count),
            torch.from_numpy(unit_to_user("length", "angstrom", np.concatenate(pos))),
            torch.full((count,), atoms),
            torch.from_numpy(cells),
            self.pbc,
            stress=repeats,
        )
        energies = unit_to_internal("energy", "electronvolt", found.energy.cpu().numpy())
        forces = unit_to_internal("force", "ev/ang", found.forces.cpu().numpy()).reshape(count, atoms, 3)
        virials = np.zeros((count, 3, 3))
        if found.stress is not None:
            volumes = np.abs(np.linalg.det(cells))[:, None, None]
            virials = unit_to_internal("energy", "electronvolt", -volumes * found.stress.cpu().numpy())
        return [(float(energy), *slopes, "") for energy, *slopes in zip(energies, forces, virials, strict=True)]
