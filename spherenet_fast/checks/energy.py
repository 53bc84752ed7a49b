"""Dynamics at constant energy, and how constant it is."""

import time

import numpy as np
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet

from ..dynamics.integrators import draw_velocities
from ..plots.energies import drift as energies_drift


def constant_energy(
    atoms: Atoms, timestep: float, picoseconds: float, temperature: float, seed: int
) -> tuple[np.ndarray, float]:
    """Total energies [steps + 1] in eV, from velocities without momentum and rotation, and the median s of a step.

    `atoms` move along. timestep: fs. temperature: K, of the velocities at the start.
    """
    draw_velocities(atoms, temperature, np.random.default_rng(seed))
    dynamics = VelocityVerlet(atoms, timestep * units.fs)
    energies, seconds = [atoms.get_total_energy()], []
    for _ in range(round(1000 * picoseconds / timestep)):
        began = time.perf_counter()
        dynamics.step()
        energies.append(atoms.get_total_energy())
        seconds.append(time.perf_counter() - began)
    return np.array(energies), float(np.median(seconds)) if seconds else float("nan")


def drift(energies: np.ndarray, timestep: float, atoms: int) -> tuple[float, float, float, float]:
    """Of total energies in eV: drift in meV per atom and ps, start to end, largest change in a step, fluctuation, meV.

    All are nan for a single energy.
    """
    if len(energies) < 2:
        return (float("nan"),) * 4
    meV = 1e3 * (energies - energies[0])
    picoseconds = 1e-3 * timestep * np.arange(len(meV))
    slope = energies_drift(picoseconds, energies)
    return slope / atoms, float(meV[-1]), float(np.abs(np.diff(meV)).max()), float((meV - slope * picoseconds).std())
