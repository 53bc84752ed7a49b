"""Data for a training: structures from dynamics, labeled by a reference calculator."""

import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from tqdm import tqdm

from .._files import check_output, write_file
from ..calculators.committee import Committee
from ..training.callbacks.signals import Interrupted, StopSignals
from ..training.predict import extended_xyz
from .forces import Forces
from .md import run_dynamics
from .records import TRAJECTORY, Trajectory
from .settings import Settings, has_volume
from .structures import bare
from .watching import CheckedCalculator, NotPhysical

LABELS = "labels.traj"


@dataclass
class Plan:
    """Which structures are wanted.

    Attributes:
        frames: of all temperatures together, which have equal shares.
        temperatures: K, all different.
        every: fs from a frame to the next. equilibrate: fs before the first one.
        timestep: fs. friction: 1/fs, of Langevin dynamics.
        seed: of velocities and random forces, plus 1 for each temperature that goes before.
        save_every: seconds between saved states.

    Raises:
        ValueError: a number is out of range, or a time no multiple of the timestep.
    """

    frames: int = 1200
    temperatures: Sequence[float] = (500.0,)
    every: float = 5.0
    equilibrate: float = 500.0
    timestep: float = 0.5
    friction: float = 0.02
    seed: int = 0
    save_every: float = 10.0

    def __post_init__(self):
        if len(set(self.temperatures)) != len(self.temperatures) or not self.temperatures:
            got = ", ".join(f"{temperature:g}" for temperature in self.temperatures) or "none"
            raise ValueError(f"--temperature: expected one or several that differ, got {got}")
        if self.frames < len(self.temperatures):
            raise ValueError(f"--frames: expected at least one for each temperature, got {self.frames}")
        self.settings(0)  # says what else is wrong

    def share(self, number: int) -> int:
        """How many frames the temperature of this number has."""
        whole, rest = divmod(self.frames, len(self.temperatures))
        return whole + (number < rest)

    def settings(self, number: int) -> Settings:
        """Of the dynamics at the temperature of this number."""
        every, before = self._steps("every", 1), self._steps("equilibrate", 0)
        return Settings(
            "langevin", before + every * self.share(number), self.timestep, self.temperatures[number],
            friction=self.friction, seed=self.seed + number, every=math.gcd(every, before), save_every=self.save_every,
        )  # fmt: skip

    def chosen(self, step: int) -> bool:
        """Whether the frame after `step` is wanted."""
        beyond = step - self._steps("equilibrate", 0)
        return beyond > 0 and beyond % self._steps("every", 1) == 0

    def identity(self) -> dict:
        """What a resumed run has to have in common with the one that it goes on with."""
        return {"every": self.every, "equilibrate": self.equilibrate}

    def _steps(self, name: str, least: int) -> int:
        time = getattr(self, name)
        steps = round(time / self.timestep) if math.isfinite(time) and self.timestep > 0 else -1
        if steps < least or abs(steps * self.timestep - time) > 1e-6:
            raise ValueError(f"--{name}: expected a multiple of the timestep, {self.timestep:g} fs, got {time:g} fs")
        return steps


def femtoseconds(text: str, option: str) -> float:
    """5.0 of "5fs", "0.005 ps" or "5". Raises ValueError."""
    match = re.fullmatch(r"\s*([0-9.]+(?:e-?[0-9]+)?)\s*(fs|ps)?\s*", text)
    try:
        return float(match[1]) * (1000 if match[2] == "ps" else 1)
    except (TypeError, ValueError):
        raise ValueError(f"{option}: expected a time, as 5fs or 0.5ps, got {text!r}") from None


def sample(
    reference: Calculator, name: str, atoms: Atoms, plan: Plan, out, resume: bool = False, overwrite: bool = False
) -> list[Atoms]:
    """Frames of Langevin dynamics with a calculator, with its energies and forces, written to `out`, extended XYZ.

    What it goes on from after a stop or a kill (`resume`) is in a folder beside `out`, `working_folder`, with the
    trajectories, logs and pictures of the dynamics.

    Args:
        reference: any calculator of ASE. name: what tells it from others.
        atoms: one structure to start from.

    Raises:
        What `run_dynamics` raises; `out` is written at the end alone.
    """
    out = _check(out, resume or overwrite)
    forces = Forces(reference, {"calculator": name} | plan.identity(), name=type(reference).__name__.lower())
    frames = []
    for number in range(len(plan.temperatures)):
        _move(forces, atoms, plan, number, out, resume, overwrite)
        frames += _wanted(plan, number, out)
    write_file(out, extended_xyz(frames).encode())
    return frames


def sample_where_unsure(
    committee: Forces, reference: Calculator, name: str, atoms: Atoms, plan: Plan, candidates: int, out,
    resume: bool = False, overwrite: bool = False, report: Callable[[str], None] = print,
) -> list[Atoms]:  # fmt: skip
    """The frames of dynamics with a committee of potentials on which it agrees least, labeled by a calculator.

    The dynamics gives `candidates` times as many frames as the plan has. The disagreement on a frame is that on the
    force of its worst atom, a standard deviation in eV/Å; it is written with the frame. Dynamics that comes where no
    further step makes sense ends early, and frames whose calculation fails are left out; `report` is told.

    Args:
        committee: `Forces.of_committee` of at least two.
        others: see `sample`.
    """
    out = _check(out, resume or overwrite)
    identity = committee.identity | {"calculator": name, "candidates": candidates, "frames": plan.frames}
    committee = committee._replace(identity=identity | plan.identity())
    moves = Plan(**vars(plan) | {"frames": candidates * plan.frames})
    found = []
    for number in range(len(plan.temperatures)):
        try:
            _move(committee, atoms, moves, number, out, resume, overwrite)
        except NotPhysical as error:
            report(f"{plan.temperatures[number]:g} K: {' '.join(str(error).split())}")
        if (_folder(moves, number, out) / TRAJECTORY).exists():
            found += _wanted(moves, number, out)
    if not found:
        raise ValueError("--checkpoint: expected dynamics that goes beyond --equilibrate, got no frame")
    spread = disagreement(committee.calculator, found)
    order = np.argsort(-spread, kind="stable")[: plan.frames]
    report(f"{len(found)} frames, disagreement {np.median(spread):.3g} eV/Å (median), {spread.max():.3g} (largest)")
    frames = _labeled(reference, [found[number] for number in order], spread[order], out, resume, report)
    write_file(out, extended_xyz(frames).encode())
    return frames


def disagreement(committee: Committee, frames: list[Atoms]) -> np.ndarray:
    """[F] eV/Å: the standard deviation of the members' force on the atom of a frame where it is largest."""
    evaluated = committee.evaluate(frames, ["energy", "forces"])
    return np.array([frame.arrays["forces_var"].sum(1).max() ** 0.5 for frame in evaluated])


def working_folder(out) -> Path:
    """Where the dynamics of `sample` are: for data.extxyz data-sampling."""
    out = Path(out)
    return out.with_name(f"{out.stem}-sampling")


def _check(out, replace: bool) -> Path:
    out = Path(out)
    check_output(out, replace)
    if out.suffix not in (".extxyz", ".xyz"):
        raise ValueError(f"--out: expected a name that ends in .extxyz or .xyz, got {out.name!r}")
    return out


def _folder(plan: Plan, number: int, out: Path) -> Path:
    return working_folder(out) / f"{plan.temperatures[number]:g}K"


def _move(forces: Forces, atoms: Atoms, plan: Plan, number: int, out: Path, resume: bool, overwrite: bool) -> None:
    folder = _folder(plan, number, out)
    if len(plan.temperatures) > 1:
        print(f"{plan.temperatures[number]:g} K", file=sys.stderr)
    run_dynamics(forces, atoms.copy(), plan.settings(number), folder, resume and folder.exists(), overwrite)


def _wanted(plan: Plan, number: int, out: Path) -> list[Atoms]:
    """The frames at one temperature that the plan asks for."""
    found = []
    for frame in ase.io.iread(_folder(plan, number, out) / TRAJECTORY, ":"):
        if plan.chosen(frame.info["step"]):
            found.append(_frame(frame, frame.calc.results, {"temperature_K": float(plan.temperatures[number])}))
    return found[: plan.share(number)]


def _frame(atoms: Atoms, results: dict, info: dict) -> Atoms:
    """A copy without velocities, with what a training learns from."""
    frame = bare(atoms)
    frame.set_momenta(None)
    frame.info = info
    wanted = {name: results[name] for name in ("energy", "free_energy", "forces", "stress") if name in results}
    frame.calc = SinglePointCalculator(frame, **wanted)
    return frame


def _labeled(reference, frames: list[Atoms], spread: np.ndarray, out: Path, resume: bool, report) -> list[Atoms]:
    """`frames` with the reference's energies and forces; those that are labeled already are read."""
    path = working_folder(out) / LABELS
    known = {atoms.info["number"]: atoms for atoms in ase.io.read(path, ":")} if resume and path.exists() else {}
    labeled, trajectory = [], Trajectory(path) if known else None
    try:
        with StopSignals() as signals:
            for number, frame in enumerate(tqdm(frames, desc="labels", disable=None, file=sys.stderr)):
                if (atoms := known.get(number)) is None:
                    if (atoms := _label(reference, frame, number, report)) is None:
                        continue
                    trajectory = _written(trajectory, path, atoms)
                info = frame.info | {"disagreement_eV_per_Ang": float(spread[number])}
                labeled.append(_frame(atoms, atoms.calc.results, info))
                if signals.received is not None:
                    raise Interrupted(signals.received, saved=True)
    finally:
        if trajectory is not None:
            trajectory.close()
    if not labeled:
        raise ValueError("--calculator: expected results for some frame, got none")
    return labeled


def _label(reference: Calculator, frame: Atoms, number: int, report) -> Atoms | None:
    atoms = frame.copy()
    stress = has_volume(atoms) and "stress" in reference.implemented_properties
    atoms.calc = CheckedCalculator(reference, stress, type(reference).__name__.lower())
    atoms.info = {"number": number}
    try:
        atoms.get_forces()
    except NotPhysical as error:
        report(f"a frame is left out: {error}")
        return None
    return atoms


def _written(trajectory: Trajectory | None, path: Path, atoms: Atoms) -> Trajectory:
    if trajectory is None:
        return Trajectory.begin(path, atoms)
    trajectory.write(atoms)
    return trajectory
