"""A run of molecular dynamics in a folder, which may be stopped at any moment and goes on to the same end."""

import hashlib
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms, units

from .._files import FolderLock, remove_partial_files
from ..plots.energies import draw_energies, drift
from ..plots.files import save
from ..training.callbacks.signals import Interrupted, StopSignals
from ..training.potential import Potential
from .forces import Forces
from .integrators import draw_velocities, make_integrator
from .progress import Progress
from .records import Log, Trajectory, read_log
from .settings import Settings, has_volume, option
from .state import State, load_state, save_state
from .watching import CheckedCalculator, Good, Neighborhoods, NotPhysical, check_temperature

TRAJECTORY, LOG, STATE, PICTURE = FILES = ("trajectory.traj", "log.csv", "state.npz", "energy.png")
COLUMNS = ("step", "time_ps", "potential_eV", "kinetic_eV", "total_eV", "temperature_K")
CELL_COLUMNS = ("pressure_GPa", "volume_A3")


class Ended(NamedTuple):
    """A run that is over. drift: meV/ps of the energy that should be constant; None where none should (langevin)."""

    atoms: Atoms
    step: int
    speed: str
    drift: float | None


def run_dynamics(
    potential: Potential | Forces, atoms: Atoms, settings: Settings, out, resume: bool = False, overwrite: bool = False
) -> Ended:
    """Move `atoms`, from where they are, as `settings` say, and write what happens into the folder `out`.

    Written there: trajectory.traj (ASE's format; frames with energy, forces, velocities and, of cells, stress; the last
    one is where the run stopped), log.csv, energy.png, and state.npz, from which `resume` goes on.

    Args:
        potential: of an energy whose unit is known; or other `Forces`.
        atoms: one structure. Its calculator is set.
        out: a folder that does not exist or is empty, unless one of the next two.
        resume: go on with the run in `out`. On a CPU it ends with the same bits as without the interruption, unless
            the results of a calculator depend on those before, as where the charges of a step begin the next one's.
        overwrite: replace the files of a run that is there.

    Raises:
        ValueError, FileExistsError: the input is wrong (nothing is written), or the folder is in use, or to be resumed
            and of another run.
        OSError: a file cannot be written.
        NotPhysical: energies, forces or positions are not finite, an atom has flown apart, or the temperature cannot
            be; the last frame of the trajectory is the last good one.
        Interrupted: a signal stopped the run, all saved.
    """
    settings.check_structure(atoms)
    out = Path(out)
    source = potential if isinstance(potential, Forces) else Forces.of_potential(potential)
    pressed = has_volume(atoms) and "stress" in source.calculator.implemented_properties
    if settings.ensemble == "npt" and not pressed:
        raise ValueError(f"--ensemble npt: expected a calculator that gives a stress, got {source.name}")
    identity = settings.of_the_run() | source.identity | {"structure": _digest(atoms)}
    with FolderLock() as lock:
        state = _state_to_resume(out, identity) if resume else None
        check_folder(out, resume, overwrite)
        atoms.calc = CheckedCalculator(source.calculator, pressed, source.name)
        rng = np.random.default_rng(settings.seed)
        neighborhoods = Neighborhoods(atoms, source.reach)
        if state is None and not settings.keep_velocities:
            draw_velocities(atoms, settings.temperature, rng)
        integrator = make_integrator(atoms, settings, rng)
        if state is not None:
            state.put(atoms, integrator, rng)
        try:
            atoms.get_forces()  # what is wrong with structure and model shows before the folder is touched
        except NotPhysical as error:
            raise NotPhysical(f"step {0 if state is None else state.step}: {error}") from error
        out.mkdir(parents=True, exist_ok=True)
        if not lock.take(out):
            raise ValueError(f"--out: expected a folder that no other process writes to, got {out}")
        remove_partial_files(out)
        run = _Run(atoms, integrator, rng, settings, out, identity, state)
        try:
            return run.to_the_end(None if settings.allow_apart else neighborhoods)
        finally:
            run.close()


class _Run:
    """What is moved and what is written, from a saved state on or from the start."""

    def __init__(self, atoms, integrator, rng, settings: Settings, out: Path, identity: dict, state: State | None):
        self.atoms, self.integrator, self.rng = atoms, integrator, rng
        self.settings, self.out, self.identity = settings, out, identity
        self.conserved = {"nve": "total_eV", "npt": "conserved_eV"}.get(settings.ensemble)
        self.step = 0 if state is None else state.step
        self._saved = time.monotonic()
        if state is None:
            for name in FILES[::-1]:
                (out / name).unlink(missing_ok=True)
            self._stamp()
            self._newest = 0  # step of the last frame
            self.trajectory = Trajectory.begin(out / TRAJECTORY, atoms)
            self.log = Log.begin(out / LOG, self._columns())
            self.log.write(self._row())
            self.save()
        else:
            self._newest = state.places["trajectory"]["step"]
            Trajectory.cut(out / TRAJECTORY, state.places["trajectory"])
            Log.cut(out / LOG, state.places["log"])
            self.trajectory, self.log = Trajectory(out / TRAJECTORY), Log(out / LOG)
        self.progress = Progress(self.step, settings.steps, settings.timestep)

    def to_the_end(self, neighborhoods: Neighborhoods | None) -> Ended:
        good = Good.of(self.atoms)
        with StopSignals() as signals:
            while self.step < self.settings.steps and signals.received is None:
                try:
                    self.integrator.step()
                    self.atoms.get_forces()
                    check_temperature(self.atoms, self.settings.temperature)
                    if neighborhoods is not None:
                        neighborhoods.check(self.atoms)
                except (ValueError, ArithmeticError) as error:  # ArithmeticError: NotPhysical, or of NumPy and the like
                    good.put(self.atoms)
                    self._finish()
                    raise NotPhysical(
                        f"step {self.step + 1}: {error}; the frame before, at {self._time():g} ps, is the last one in "
                        f"{self.out / TRAJECTORY}; a smaller --timestep may help"
                    ) from error
                self.step += 1
                good = Good.of(self.atoms)
                self._record()
                if time.monotonic() - self._saved >= self.settings.save_every:
                    self.save()
            self.save()
            self._finish()
        if self.step < self.settings.steps:
            raise Interrupted(signals.received, saved=True)
        slope = None
        if self.conserved:
            log = read_log(self.out / LOG)
            slope = drift(log["time_ps"], log[self.conserved])
        return Ended(self.atoms, self.step, self.progress.speed(), slope)

    def save(self) -> None:
        places = {"trajectory": self.trajectory.place() | {"step": self._newest}, "log": self.log.place()}
        save_state(self.out / STATE, self.step, self.atoms, self.integrator, self.rng, places, self.identity)
        self._saved = time.monotonic()

    def close(self) -> None:
        self.progress.close()
        self.trajectory.close()

    def _record(self) -> None:
        self._stamp()
        if self.step % self.settings.log_every == 0:
            self.log.write(self._row())
        if self.step % self.settings.every == 0:
            self.trajectory.write(self.atoms)
            self._newest = self.step
        self.progress.update(self.step, self.atoms.get_total_energy(), self.atoms.get_temperature())

    def _finish(self) -> None:
        """The frame at which the run stopped, which no saved state counts, and the picture."""
        if self._newest != self.step:
            self._stamp()
            self.trajectory.write(self.atoms)
        save(draw_energies(read_log(self.out / LOG), self.conserved), self.out / PICTURE)

    def _time(self) -> float:
        return self.step * self.settings.timestep / 1000

    def _stamp(self) -> None:
        self.atoms.info = {"step": self.step, "time_ps": self._time()}

    def _columns(self) -> list[str]:
        cell = CELL_COLUMNS if self.atoms.calc.stress else ()
        return [*COLUMNS, *cell, *(["conserved_eV"] if self.settings.ensemble == "npt" else [])]

    def _row(self) -> list:
        atoms = self.atoms
        potential, kinetic = atoms.get_potential_energy(), atoms.get_kinetic_energy()
        numbers = [self._time(), potential, kinetic, potential + kinetic, atoms.get_temperature()]
        if atoms.calc.stress:
            stress = atoms.get_stress(include_ideal_gas=True)
            numbers += [-stress[:3].mean() / units.GPa, atoms.get_volume()]
        if self.settings.ensemble == "npt":
            numbers.append(self.integrator.get_conserved_energy())
        return [self.step, *map(float, numbers)]


def check_folder(out: Path, resume: bool, overwrite: bool) -> None:
    """ValueError or FileExistsError if a run may not write there."""
    if resume and overwrite:
        raise ValueError("--overwrite: expected none with --resume, got both")
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out: expected a folder, got the file {out}")
    if not (resume or overwrite) and out.is_dir() and any(out.iterdir()):
        raise FileExistsError(
            f"--out: expected a new folder, got {out}, which is in use; --resume goes on with a run there, "
            "--overwrite replaces it"
        )


def _digest(atoms: Atoms) -> str:
    """What tells a starting structure from others."""
    structure = hashlib.sha256(atoms.numbers.astype("<i8").tobytes())
    arrays = [atoms.positions, atoms.cell.array, atoms.pbc, atoms.get_masses()]
    arrays += [atoms.get_momenta()] if atoms.has("momenta") else []
    for array in arrays:
        structure.update(np.asarray(array, dtype="<f8").tobytes())
    structure.update(repr([constraint.todict() for constraint in atoms.constraints]).encode())
    return structure.hexdigest()


def _state_to_resume(out: Path, identity: dict) -> State | None:
    """The saved state in `out`; None if the run was stopped before the first one.

    Raises FileNotFoundError, ValueError: there is no run, or another one, whose first difference is named.
    """
    path = out / STATE
    if not path.is_file():
        others = [file.name for file in out.iterdir() if file.name not in FILES] if out.is_dir() else [""]
        if [name for name in others if not name.endswith(".partial")]:
            raise FileNotFoundError(f"--resume: there is no {path}")
        return None
    state = load_state(path)
    for name, value in identity.items():
        if name not in state.run or state.run[name] != value:
            if name in ("checkpoint", "structure"):
                raise ValueError(f"--resume: expected the {name} that the run in {out} began with, got another")
            was = state.run.get(name)
            raise ValueError(f"--resume: expected {option(name)} {was} as in {path}, got {value}")
    return state
