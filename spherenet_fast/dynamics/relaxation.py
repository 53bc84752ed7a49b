"""Relaxations: structures, and their cells if wanted, to where nothing pulls on them."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS, FIRE, LBFGS

from .._files import check_output
from ..calculators.ase import SphereNetCalculator
from ..training.callbacks.signals import Interrupted, StopSignals
from ..training.potential import Potential
from ..training.predict import write_structures
from ..training.results import check_structures
from .records import Trajectory
from .settings import has_volume
from .structures import bare, largest_force
from .watching import CheckedCalculator, Good, Neighborhoods, NotPhysical

OPTIMIZERS = {"bfgs": BFGS, "lbfgs": LBFGS, "fire": FIRE}


class Relaxed(NamedTuple):
    """The end of one relaxation. energy: eV. fmax: the largest force on an atom or a vector of the cell, eV/Å."""

    converged: bool
    steps: int
    energy: float
    fmax: float


def relax(
    potential: Potential,
    structures: list[Atoms],
    out,
    optimizer: str = "bfgs",
    fmax: float = 0.01,
    steps: int = 500,
    cell: bool = False,
    overwrite: bool = False,
    report: Callable[[int, Relaxed], None] | None = None,
) -> list[Relaxed]:
    """Relax structures one after another and write them to `out`, extended XYZ; the way there is beside it, a .traj.

    Args:
        potential: of an energy whose unit is known.
        optimizer: "bfgs", "lbfgs" or "fire".
        fmax: eV/Å, of a relaxed structure. steps: at most.
        cell: relax the cells, too, by ASE's FrechetCellFilter.
        overwrite: replace files that are there.
        report: called with the number of a structure and what became of it.

    Raises:
        ValueError: the input is wrong; nothing is written.
        OSError: a file cannot be written.
        NotPhysical: energies or forces are not finite, or an atom has flown apart; Interrupted: a signal came. What was
            done is written, and of the structure at hand the last good frame.
    """
    out, way = Path(out), Path(out).with_suffix(".traj")
    _check(potential, structures, out, way, optimizer, fmax, cell, overwrite)
    results: list[Relaxed] = []
    frames: list[Atoms] = []
    trajectory = None
    try:
        with StopSignals() as signals:
            for number, structure in enumerate(structures):
                atoms = bare(structure)
                atoms.set_momenta(None)
                atoms.calc = CheckedCalculator(SphereNetCalculator(potential), stress=cell)
                atoms.info = {"structure": number, "step": 0}
                neighborhoods = Neighborhoods([atoms], potential.model.cutoff)
                try:
                    atoms.get_forces()
                    trajectory = _begin(way, atoms, trajectory)
                    moved = FrechetCellFilter(atoms) if cell else atoms
                    dynamics = OPTIMIZERS[optimizer](moved, logfile=None)
                    relaxed = _run(dynamics, moved, atoms, fmax, steps, trajectory, neighborhoods, signals)
                except NotPhysical as error:
                    if atoms.calc.results:
                        frames.append(_frame(atoms, structure, False))
                    raise NotPhysical(f"structure {number}: {error}") from error
                results.append(relaxed)
                frames.append(_frame(atoms, structure, relaxed.converged))
                if report is not None:
                    report(number, relaxed)
                if signals.received is not None:
                    raise Interrupted(signals.received, saved=True)
    finally:
        if trajectory is not None:
            trajectory.close()
        if frames:
            write_structures(out, frames)
    return results


def _begin(way: Path, atoms: Atoms, trajectory: Trajectory | None) -> Trajectory:
    """The trajectory with the first frame of one more structure."""
    if trajectory is None:
        return Trajectory.begin(way, atoms)
    trajectory.write(atoms)
    return trajectory


def _run(dynamics, moved, atoms: Atoms, fmax, steps, trajectory, neighborhoods, signals) -> Relaxed:
    """Raises NotPhysical, with the atoms back at the last good frame."""
    good = Good.of(atoms)
    try:
        for converged in dynamics.irun(fmax=fmax, steps=steps):
            if dynamics.nsteps > atoms.info["step"]:
                neighborhoods.check()
                good = Good.of(atoms)
                atoms.info["step"] = dynamics.nsteps
                trajectory.write(atoms)
            energy, largest = float(atoms.get_potential_energy()), largest_force(moved.get_forces())
            relaxed = Relaxed(bool(converged), dynamics.nsteps, energy, largest)
            if signals.received is not None:
                break
    except (ValueError, ArithmeticError) as error:
        good.put(atoms)
        raise NotPhysical(f"step {atoms.info['step'] + 1}: {error}; the frame before is written") from error
    return relaxed


def _frame(atoms: Atoms, structure: Atoms, converged: bool) -> Atoms:
    """A copy with its results, what is to be said of it, and the names that `structure`, as it was read, has."""
    frame = atoms.copy()
    names = {key: value for key, value in structure.info.items() if isinstance(value, str)}
    frame.info = names | atoms.info | {"converged": converged}
    frame.calc = SinglePointCalculator(frame, **atoms.calc.results)
    return frame


def _check(potential, structures, out: Path, way: Path, optimizer: str, fmax, cell: bool, overwrite: bool) -> None:
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"--optimizer: expected {', '.join(OPTIMIZERS)}, got {optimizer!r}")
    if not (math.isfinite(fmax) and fmax > 0):
        raise ValueError(f"--fmax: expected a number above 0, got {fmax:g}")
    if out == way:
        raise ValueError(f"--out: expected a name that does not end in .traj, as the trajectory's does, got {out.name}")
    for path in (out, way):
        check_output(path, overwrite)
    check_structures(potential, structures)
    for number, atoms in enumerate(structures):
        if cell and not has_volume(atoms):
            raise ValueError(
                f"--cell: expected structures that repeat in three directions, got pbc {atoms.pbc.tolist()} and cell "
                f"{atoms.cell.tolist()} in structure {number}"
            )
