"""How a run of molecular dynamics goes, checked: what contradicts is named by its option."""

import math
from dataclasses import asdict, dataclass

import numpy as np
from ase import Atoms

ENSEMBLES = ("nve", "langevin", "npt")
TEMPERATURE = 300.0  # K
FRICTION = 0.01  # 1/fs
HOTTEST = 10_000.0  # K: no kinetic temperature is meant to be above this, or ten times the one that is asked for
# What changes no step of a run, and may differ between its parts.
FREE_ON_RESUME = ("steps", "every", "log_every", "save_every", "allow_apart")


@dataclass
class Settings:
    """Of `run_dynamics`. None: not given; what the ensemble takes has its default after that.

    Attributes:
        ensemble: "nve": constant energy (velocity Verlet); "langevin": constant temperature, by friction and random
            forces; "npt": constant temperature and pressure (Martyna, Tobias, Klein), for cells.
        steps: of the whole run, all resumed parts together.
        timestep: fs.
        temperature: K, of the velocities at the start and of the thermostat; default 300.
        keep_velocities: start with the velocities that the structure has.
        friction: 1/fs, of "langevin"; default 0.01.
        pressure: GPa, of "npt"; default 0.
        flexible: "npt" changes the shape of the cell, too, not only its volume.
        seed: of the velocities at the start and the random forces.
        every, log_every: steps between frames of the trajectory and rows of the log.
        save_every: seconds between saved states, at least; 0: after every step.
        allow_apart: go on where an atom has lost all of its neighbors.

    Raises:
        ValueError: two of them contradict each other, or a number is out of range.
    """

    ensemble: str = "langevin"
    steps: int = 2000
    timestep: float = 0.5
    temperature: float | None = None
    keep_velocities: bool = False
    friction: float | None = None
    pressure: float | None = None
    flexible: bool = False
    seed: int = 0
    every: int = 10
    log_every: int = 10
    save_every: float = 10.0
    allow_apart: bool = False

    def __post_init__(self):
        if self.ensemble not in ENSEMBLES:
            raise ValueError(f"--ensemble: expected {', '.join(ENSEMBLES)}, got {self.ensemble!r}")
        for name, ensemble in (("friction", "langevin"), ("pressure", "npt"), ("flexible", "npt")):
            value = getattr(self, name)
            if value is not None and value is not False and self.ensemble != ensemble:
                came = "it" if value is True else f"{value:g}"
                raise ValueError(f"--{name}: expected with --ensemble {ensemble} only, got {came} with {self.ensemble}")
        if self.keep_velocities and self.ensemble == "nve" and self.temperature is not None:
            raise ValueError(
                "--temperature: expected none with --keep-velocities at constant energy, where the velocities are "
                f"all that has one, got {self.temperature:g}"
            )
        self.temperature = TEMPERATURE if self.temperature is None else self.temperature
        if self.ensemble == "langevin" and self.friction is None:
            self.friction = FRICTION
        if self.ensemble == "npt" and self.pressure is None:
            self.pressure = 0.0
        self._check_ranges()

    def _check_ranges(self):
        positive = {"timestep": self.timestep, "every": self.every, "log_every": self.log_every}
        positive |= {"friction": self.friction} if self.friction is not None else {}
        positive |= {"temperature": self.temperature} if self.ensemble == "npt" else {}
        least = {"temperature": self.temperature, "steps": self.steps, "save_every": self.save_every, "seed": self.seed}
        for name, value in {**least, **positive}.items():
            if not (math.isfinite(value) and (value > 0 if name in positive else value >= 0)):
                wanted = "a number above 0" if name in positive else "a number of at least 0"
                raise ValueError(f"{option(name)}: expected {wanted}, got {value:g}")
        if self.temperature > HOTTEST:
            raise ValueError(f"--temperature: expected at most {HOTTEST:g} K, got {self.temperature:g}")
        if self.pressure is not None and not math.isfinite(self.pressure):
            raise ValueError(f"--pressure: expected a number of GPa, got {self.pressure:g}")

    def check_structure(self, atoms: Atoms) -> None:
        """ValueError if `atoms` cannot be moved so."""
        if self.ensemble == "npt" and not has_volume(atoms):
            raise ValueError(
                "--ensemble npt: expected a structure that repeats in three directions, in a cell of three vectors, "
                f"got pbc {atoms.pbc.tolist()} and cell {atoms.cell.tolist()}"
            )
        if self.ensemble == "npt" and atoms.constraints:
            kinds = ", ".join(sorted({type(constraint).__name__ for constraint in atoms.constraints}))
            raise ValueError(f"--ensemble npt: expected a structure without constraints, got {kinds}")
        masses = atoms.get_masses()
        if len(wrong := np.flatnonzero(~(np.isfinite(masses) & (masses > 0)))):
            atom = int(wrong[0])
            raise ValueError(f"masses: expected numbers above 0, got {masses[atom]:g} for atom {atom}")
        try:
            free = atoms.get_number_of_degrees_of_freedom()
        except NotImplementedError as error:
            kinds = ", ".join(sorted({type(constraint).__name__ for constraint in atoms.constraints}))
            raise ValueError(
                f"constraints: expected such of which ASE knows how many coordinates they fix, got {kinds}"
            ) from error
        if free <= 0:
            raise ValueError("constraints: expected some atoms that are free to move, got none")
        if self.keep_velocities and not atoms.has("momenta"):
            raise ValueError("--keep-velocities: expected a structure with velocities or momenta, got one without")

    def of_the_run(self) -> dict:
        """What may not change on a resume: {option: value}."""
        return {name: value for name, value in asdict(self).items() if name not in FREE_ON_RESUME}


def steps_of(steps: int | None, picoseconds: float | None, timestep: float) -> int:
    """The number of steps (default: 1 ps). timestep: fs. Raises ValueError if both are given, or a time of no step."""
    if steps is not None and picoseconds is not None:
        raise ValueError(f"--picoseconds: expected none with --steps, got {picoseconds:g} and {steps} steps")
    if steps is not None:
        return steps
    picoseconds = 1.0 if picoseconds is None else picoseconds
    for name, value in (("timestep", timestep), ("picoseconds", picoseconds)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"--{name}: expected a number above 0, got {value:g}")
    wanted = 1000 * picoseconds / timestep
    if not math.isfinite(wanted):
        raise ValueError(f"--picoseconds: expected a number of steps of {timestep:g} fs, got {picoseconds:g}")
    if round(wanted) < 1:
        raise ValueError(f"--picoseconds: expected the time of a step, {timestep:g} fs, or more, got {picoseconds:g}")
    return round(wanted)


def option(name: str) -> str:
    """A setting as the command has it."""
    return "--" + name.replace("_", "-")


def has_volume(atoms: Atoms) -> bool:
    """Whether the atoms repeat in all directions, so that there is a pressure."""
    return bool(atoms.pbc.all()) and atoms.cell.rank == 3
