"""``spherenet-fast md`` of a file with several structures: one batch, and what each of them has of its own."""

import subprocess
import sys

import ase.io
import numpy as np
import pytest
from ase import units
from ase.build import molecule
from ase.constraints import FixAtoms, FixBondLengths
from commands import call

from spherenet_fast.calculators import SphereNetCalculator
from spherenet_fast.calculators.evaluator import Evaluator
from spherenet_fast.dynamics import integrators
from spherenet_fast.dynamics.forces import Forces
from spherenet_fast.dynamics.md import run_batch
from spherenet_fast.dynamics.records import LOG, PICTURE, TRAJECTORY, Record, read_log
from spherenet_fast.dynamics.settings import Settings
from spherenet_fast.dynamics.state import FILES, STATE, load_state
from spherenet_fast.training import Potential

NAMES = ("CO2", "CH3OH", "H2O")


def several(**cell):
    """Three molecules, one of them with atoms that do not move freely."""
    structures = [molecule(name, **cell) for name in NAMES]
    for number, atoms in enumerate(structures):
        atoms.rattle(0.05, seed=number)
    structures[1].set_constraint([FixAtoms([0]), FixBondLengths([[1, 2]])])
    return structures


@pytest.fixture
def file(tmp_path):
    ase.io.write(tmp_path / "several.traj", several())
    return tmp_path / "several.traj"


def folders(out):
    return [out / f"structure-{number:03}" for number in range(len(NAMES))]


def same_files(one, other):
    """Whether two runs have left the same bits of every structure."""
    assert {path.name for path in one.iterdir()} == {path.name for path in other.iterdir()}
    for left, right in zip(folders(one), folders(other), strict=True):
        for name in (LOG, TRAJECTORY):
            assert (left / name).read_bytes() == (right / name).read_bytes()
    left, right = load_state(one / STATE), load_state(other / STATE)
    assert left.step == right.step and left.rng == right.rng
    assert all(np.array_equal(value, right.arrays[name]) for name, value in left.arrays.items())


@pytest.mark.parametrize("ensemble", ["nve", "langevin"])
def test_each_moves_as_it_would_alone(checkpoint, file, tmp_path, ensemble):
    options = ["--ensemble", ensemble, "--steps", 15, "--seed", 3]
    status, stdout, err = call("md", checkpoint, file, "-o", tmp_path / "all", *options)
    assert status == 0, err
    assert "15 steps (0.0075 ps) of 3 structures" in stdout and "ns/day of 3 structures" in stdout
    assert stdout.count("meV/atom/ps") == (3 if ensemble == "nve" else 0)
    assert {path.name for path in (tmp_path / "all").iterdir()} == {STATE, *(path.name for path in folders(tmp_path))}
    for number, folder in enumerate(folders(tmp_path / "all")):
        assert {path.name for path in folder.iterdir()} == {LOG, TRAJECTORY, PICTURE}
        alone = tmp_path / f"alone{number}"
        options[-1] = 3 + number
        status, single, err = call("md", checkpoint, file, "-o", alone, *options, "--frame", number)
        assert status == 0, err
        assert {path.name for path in alone.iterdir()} == set(FILES)
        frames, expected = (ase.io.read(path / TRAJECTORY, ":") for path in (folder, alone))
        assert [frame.info for frame in frames] == [frame.info for frame in expected]
        for frame, other in zip(frames, expected, strict=True):
            assert frame.get_chemical_formula() == other.get_chemical_formula()
            # One batch sums in another order than one structure: rounding of float64, grown by 15 steps.
            np.testing.assert_allclose(frame.positions, other.positions, atol=1e-10)
            np.testing.assert_allclose(frame.get_momenta(), other.get_momenta(), atol=1e-10)
            np.testing.assert_allclose(frame.get_forces(), other.get_forces(), atol=1e-9)
            assert len(frame.constraints) == len(other.constraints)
        log, other = read_log(folder / LOG), read_log(alone / LOG)
        assert log.keys() == other.keys()
        for name in log:
            np.testing.assert_allclose(log[name], other[name], rtol=1e-8)
        if ensemble == "nve":
            assert f"{folder.name}: {single.splitlines()[-1]}" in stdout  # the drift, printed with three digits


def test_cells_have_a_pressure(checkpoint, tmp_path):
    ase.io.write(tmp_path / "cells.traj", several(cell=[6, 6.5, 7], pbc=True))
    assert (
        call("md", checkpoint, tmp_path / "cells.traj", "-o", tmp_path / "run", "--steps", 3, "--log-every", 1)[0] == 0
    )
    for folder, atoms in zip(folders(tmp_path / "run"), several(cell=[6, 6.5, 7], pbc=True), strict=True):
        log, last = read_log(folder / LOG), ase.io.read(folder / TRAJECTORY)
        assert log["volume_A3"].tolist() == pytest.approx([atoms.get_volume()] * 4)
        momenta, last.calc = last.get_momenta(), SphereNetCalculator(Potential.load(checkpoint))
        last.set_momenta(momenta, apply_constraint=False)
        stress = last.get_stress(include_ideal_gas=True)
        assert log["pressure_GPa"][-1] == pytest.approx(-stress[:3].mean() / units.GPa, rel=1e-6)


@pytest.mark.parametrize("ensemble", ["nve", "langevin"])
def test_a_run_that_breaks_off_anywhere_resumes_to_the_same_bits(checkpoint, file, tmp_path, monkeypatch, ensemble):
    """Also between the files of two structures, where some are a row ahead of the others."""
    options = ["--ensemble", ensemble, "--steps", 12, "--every", 2, "--log-every", 1]
    assert call("md", checkpoint, file, "-o", tmp_path / "whole", *options)[0] == 0
    plain, calls = Record.row, []

    class Killed(BaseException):
        pass

    def row(self, numbers):
        calls.append(1)
        if len(calls) == 3 * 8 + 2:
            raise Killed
        plain(self, numbers)

    with monkeypatch.context() as patch:
        patch.setattr(Record, "row", row)
        with pytest.raises(Killed):
            call("md", checkpoint, file, "-o", tmp_path / "run", *options)
    rows = [len(read_log(folder / LOG)["step"]) for folder in folders(tmp_path / "run")]
    assert rows == [9, 8, 8] and load_state(tmp_path / "run" / STATE).step == 0
    assert call("md", checkpoint, file, "-o", tmp_path / "run", *options[:3], 5, *options[4:], "--resume")[0] == 0
    assert call("md", checkpoint, file, "-o", tmp_path / "run", *options, "--resume")[0] == 0
    same_files(tmp_path / "whole", tmp_path / "run")


def test_one_that_flies_apart_is_named_and_all_keep_their_last_good_frame(checkpoint, tmp_path):
    structures = several()
    velocities = np.zeros((3, 3))
    velocities[1] = (structures[2].positions[1] - structures[2].positions[0]) * 0.2 / units.fs
    structures[2].set_velocities(velocities)
    for atoms in structures[:2]:
        atoms.set_momenta(np.full((len(atoms), 3), 1e-3))
    ase.io.write(tmp_path / "thrown.traj", structures)
    options = ["--ensemble", "nve", "--keep-velocities", "--steps", 60]
    status, _, err = call("md", checkpoint, tmp_path / "thrown.traj", "-o", tmp_path / "run", *options)
    assert status == 2 and err.count("\n") == 1
    assert "structure 2: atom 1 (H) has flown apart: nobody is within 3 Å of it" in err
    last = [ase.io.read(folder / TRAJECTORY) for folder in folders(tmp_path / "run")]
    assert {atoms.info["step"] for atoms in last} == {int(err.split("step ")[1].split(":")[0]) - 1}
    assert 2.8 < last[2].get_all_distances()[1, [0, 2]].min() <= 3  # a step is 0.1 Å long
    for atoms in last:
        other = atoms.copy()
        other.calc = SphereNetCalculator(Potential.load(checkpoint))
        np.testing.assert_allclose(atoms.get_forces(), other.get_forces(), atol=1e-10)  # sums in another order


def test_a_number_that_is_not_finite_is_that_of_a_structure(checkpoint, file, tmp_path, monkeypatch):
    plain, calls = Evaluator.__call__, []

    def spoiled(self, **arguments):
        found = plain(self, **arguments)
        calls.append(1)
        if len(calls) == 5:  # the first belongs to the start
            found.energy[1] = np.nan
        return found

    monkeypatch.setattr(Evaluator, "__call__", spoiled)
    status, _, err = call("md", checkpoint, file, "-o", tmp_path / "run", "--ensemble", "nve", "--steps", 20)
    assert status == 2 and "step 4: structure 1: energy is not finite; the frame before, at 0.0015 ps" in err
    for folder in folders(tmp_path / "run"):
        last = ase.io.read(folder / TRAJECTORY)
        assert last.info["step"] == 3 and np.isfinite(last.get_potential_energy())


def test_a_run_of_one_replaces_one_of_several(checkpoint, file, tmp_path):
    assert call("md", checkpoint, file, "-o", tmp_path / "run", "--steps", 2)[0] == 0
    (folders(tmp_path / "run")[1] / "notes.txt").write_text("mine")
    status, _, err = call("md", checkpoint, file, "-o", tmp_path / "run", "--frame", 0, "--steps", 4, "--resume")
    assert status == 2 and "--resume: expected the structure that the run in" in err
    assert call("md", checkpoint, file, "-o", tmp_path / "run", "--frame", 0, "--steps", 2, "--overwrite")[0] == 0
    assert {path.name for path in (tmp_path / "run").iterdir()} == {*FILES, "structure-001"}
    assert [path.name for path in folders(tmp_path / "run")[1].iterdir()] == ["notes.txt"]


def test_what_does_not_move_together_is_named(checkpoint, file, tmp_path):
    def refused(structures, *options):
        ase.io.write(tmp_path / "wrong.traj", structures)
        status, _, err = call("md", checkpoint, tmp_path / "wrong.traj", "-o", tmp_path / "run", *options)
        assert status == 2 and err.count("\n") == 1 and not (tmp_path / "run").exists()
        return err

    cells = several(cell=[6, 6.5, 7], pbc=True)
    assert "--ensemble npt: expected one structure, got 2; --frame 0 to 1" in refused(cells[::2], "--ensemble", "npt")
    err = refused([several()[0], cells[1]])
    assert "structure 1: expected pbc [False, False, False], as of the first one, got [True, True, True]" in err
    wrong = several()
    wrong[2].set_masses([16, 0, 1])
    assert "structure 2: masses: expected numbers above 0, got 0 for atom 1" in refused(wrong)
    wrong = several()
    wrong[1].positions[3] = wrong[1].positions[4]
    assert "frame 1 of the structures: pos: expected atoms at least" in refused(wrong)
    forces = Forces.of_potential(Potential.load(checkpoint))
    with pytest.raises(ValueError, match="structures: expected one with other forces than those of a potential, got 3"):
        run_batch(forces, several(), Settings(steps=1), tmp_path / "run")


def test_random_numbers_are_those_of_each_alone():
    draws = integrators.Draws(5, [2, 3])
    first = draws.standard_normal(size=(5, 3))
    alone = [np.random.default_rng(5 + number).standard_normal((count, 3)) for number, count in enumerate([2, 3])]
    assert np.array_equal(first, np.concatenate(alone))
    state = draws.state
    again = draws.standard_normal(size=(5, 3))
    draws.state = state
    assert np.array_equal(draws.standard_normal(size=(5, 3)), again) and not np.array_equal(first, again)


def test_more_structures_than_files_may_be_open():
    """In a process of its own, as a limit once lowered stays so."""
    code = """if True:
        import resource
        from spherenet_fast.dynamics.records import OTHER_FILES, check_open_files
        soft, hard = OTHER_FILES + 5, OTHER_FILES + 100
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        check_open_files(5)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)
        check_open_files(50)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (OTHER_FILES + 50, hard)
        check_open_files(101)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ValueError: structures: expected at most 100, as many files may be open at once" in done.stderr
