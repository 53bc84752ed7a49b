"""A run of molecular dynamics in a folder, which may be stopped at any moment and goes on to the same end."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ase import Atoms, units

from .._files import FolderLock, remove_partial_files
from ..training.callbacks.signals import Interrupted, StopSignals
from ..training.potential import Potential
from ..training.results import check_structures
from .forces import Forces, JointCalculator
from .integrators import Draws, draw_velocities, make_integrator
from .progress import Progress
from .records import TRAJECTORY, Record, check_open_files
from .settings import Settings, has_volume
from .state import STATE, State, check_folder, clear, digest, folder_of, save_state, state_to_resume
from .structures import joined
from .watching import CheckedCalculator, Good, Neighborhoods, NotPhysical, check_temperature, named

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
    [ended] = run_batch(potential, [atoms], settings, out, resume, overwrite)
    return ended


def run_batch(
    potential: Potential | Forces,
    structures: Sequence[Atoms],
    settings: Settings,
    out,
    resume: bool = False,
    overwrite: bool = False,
) -> list[Ended]:
    """`run_dynamics` of several structures at once, whose forces come from one call of the potential in every step.

    Structure k moves as it would alone with k added to the seed, but for rounding. Trajectory, log and picture of each
    are in a folder of its own, structure-000, structure-001, ... in `out`; of a single structure in `out` itself.

    Args:
        potential: of several structures no other `Forces`.
        structures: they repeat in the same directions. "npt" moves one alone.
        others: see `run_dynamics`.

    Raises:
        What `run_dynamics` raises; the structure is named. One that comes where no further step makes sense ends the
        run of all, and the last frame of each trajectory is the last good one.
    """
    structures, out = list(structures), Path(out)
    _check_structures(potential, structures, settings)
    source = potential if isinstance(potential, Forces) else Forces.of_potential(potential)
    pressed = all(map(has_volume, structures)) and "stress" in source.calculator.implemented_properties
    if settings.ensemble == "npt" and not pressed:
        raise ValueError(f"--ensemble npt: expected a calculator that gives a stress, got {source.name}")
    digests = [digest(atoms) for atoms in structures]
    identity = settings.of_the_run() | source.identity | {"structure": digests if len(digests) > 1 else digests[0]}
    with FolderLock() as lock:
        state = state_to_resume(out, identity) if resume else None
        check_folder(out, resume, overwrite)
        rng = Draws(settings.seed, [len(atoms) for atoms in structures])
        neighborhoods = Neighborhoods(structures, source.reach)
        if state is None and not settings.keep_velocities:
            for atoms, generator in zip(structures, rng.generators, strict=True):
                draw_velocities(atoms, settings.temperature, generator)
        if isinstance(potential, Potential) and len(structures) > 1:
            atoms = joined(structures)
            atoms.calc = JointCalculator(potential, structures, pressed, source.name)
        else:
            [atoms] = structures
            atoms.calc = CheckedCalculator(source.calculator, pressed, source.name)
        atoms.set_positions(atoms.get_positions())  # constraints of lengths measure them at the start, not on a resume
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
        run = _Run(atoms, structures, integrator, rng, settings, out, identity, state)
        try:
            return run.to_the_end(None if settings.allow_apart else neighborhoods)
        finally:
            run.close()


class _Run:
    """What is moved and what is written, from a saved state on or from the start.

    atoms: what the integrator moves: the only one of `structures`, or all of them joined.
    """

    def __init__(
        self, atoms, structures, integrator, rng, settings: Settings, out, identity: dict, state: State | None
    ):
        self.atoms, self.structures, self.integrator, self.rng = atoms, structures, integrator, rng
        self.settings, self.out, self.identity = settings, out, identity
        conserved = {"nve": "total_eV", "npt": "conserved_eV"}.get(settings.ensemble)
        folders = [out]
        if len(structures) > 1:
            folders = [out / folder_of(number) for number in range(len(structures))]
        self.records: list[Record] = []
        self.step = 0 if state is None else state.step
        self._saved = time.monotonic()
        if state is None:
            clear(out)
            self._share()
            for folder, one in zip(folders, structures, strict=True):
                self.records.append(Record.begin(folder, one, conserved, self._columns()))
                self.records[-1].row(self._row(one))
            self.save()
        else:
            for folder, one, place in zip(folders, structures, state.places, strict=True):
                self.records.append(Record.cut(folder, one, conserved, place))
        self.progress = Progress(self.step, settings.steps, settings.timestep, len(structures))

    def to_the_end(self, neighborhoods: Neighborhoods | None) -> list[Ended]:
        good = Good.of(self.atoms)
        with StopSignals() as signals:
            while self.step < self.settings.steps and signals.received is None:
                try:
                    self.integrator.step()
                    self.atoms.get_forces()
                    check_temperature(self.structures, self.settings.temperature)
                    if neighborhoods is not None:
                        neighborhoods.check()
                except (ValueError, ArithmeticError) as error:  # ArithmeticError: NotPhysical, or of NumPy and the like
                    good.put(self.atoms)
                    self._finish()
                    last = self.out / TRAJECTORY if len(self.records) == 1 else f"each {TRAJECTORY} below {self.out}"
                    raise NotPhysical(
                        f"step {self.step + 1}: {error}; the frame before, at {self._time():g} ps, is the last one in "
                        f"{last}; a smaller --timestep may help"
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
        speed = self.progress.speed()
        return [Ended(record.atoms, self.step, speed, record.drift()) for record in self.records]

    def save(self) -> None:
        places = [record.place() for record in self.records]
        save_state(self.out / STATE, self.step, self.atoms, self.integrator, self.rng, places, self.identity)
        self._saved = time.monotonic()

    def close(self) -> None:
        self.progress.close()
        for record in self.records:
            record.close()

    def _record(self) -> None:
        row, frame = self.step % self.settings.log_every == 0, self.step % self.settings.every == 0
        if row or frame:
            self._share()
            for record in self.records:
                if row:
                    record.row(self._row(record.atoms))
                if frame:
                    record.frame(self.step, self._time())
        self.progress.update(self.step, self.atoms.get_total_energy(), self.atoms.get_temperature())

    def _finish(self) -> None:
        """The frame at which the run stopped, which no saved state counts, and the picture."""
        self._share()
        for record in self.records:
            record.frame(self.step, self._time())
            record.draw()

    def _share(self) -> None:
        if len(self.structures) > 1:
            self.atoms.calc.share()

    def _time(self) -> float:
        return self.step * self.settings.timestep / 1000

    def _columns(self) -> list[str]:
        cell = CELL_COLUMNS if self.atoms.calc.stress else ()
        return [*COLUMNS, *cell, *(["conserved_eV"] if self.settings.ensemble == "npt" else [])]

    def _row(self, atoms: Atoms) -> list:
        potential, kinetic = atoms.get_potential_energy(), atoms.get_kinetic_energy()
        numbers = [self._time(), potential, kinetic, potential + kinetic, atoms.get_temperature()]
        if self.atoms.calc.stress:
            stress = atoms.get_stress(include_ideal_gas=True)
            numbers += [-stress[:3].mean() / units.GPa, atoms.get_volume()]
        if self.settings.ensemble == "npt":
            numbers.append(self.integrator.get_conserved_energy())
        return [self.step, *map(float, numbers)]


def _check_structures(potential: Potential | Forces, structures: list[Atoms], settings: Settings) -> None:
    """ValueError if they cannot be moved so, or not together."""
    count = len(structures)
    for number, atoms in enumerate(structures):
        try:
            settings.check_structure(atoms)
        except ValueError as error:
            raise ValueError(f"{named(number, structures)}{error}") from error
    if count == 1:
        return
    if settings.ensemble == "npt":
        raise ValueError(f"--ensemble npt: expected one structure, got {count}; --frame 0 to {count - 1} chooses one")
    if not isinstance(potential, Potential):
        raise ValueError(f"structures: expected one with other forces than those of a potential, got {count}")
    for number, atoms in enumerate(structures):
        if (atoms.pbc != structures[0].pbc).any():
            raise ValueError(
                f"structure {number}: expected pbc {structures[0].pbc.tolist()}, as of the first one, got "
                f"{atoms.pbc.tolist()}; --frame chooses one structure"
            )
    check_structures(potential, structures)
    check_open_files(count)
