"""``spherenet-fast md``: what it writes, how it is stopped and goes on, and what it refuses."""

import signal

import ase.io
import numpy as np
import pytest
from ase import units
from ase.build import bulk, molecule
from ase.constraints import FixAtoms, MirrorForce
from commands import call

from spherenet_fast.dynamics import integrators
from spherenet_fast.dynamics.records import LOG, PICTURE, TRAJECTORY, read_log
from spherenet_fast.dynamics.state import FILES, STATE, load_state
from spherenet_fast.plots.energies import drift


def md(checkpoint, structure, out, *options):
    return call("md", checkpoint, structure, "-o", out, *options)


def in_a_file(tmp_path, atoms, name="structure.traj"):
    ase.io.write(tmp_path / name, atoms)
    return tmp_path / name


def at_step(monkeypatch, number, action):
    """Make `action` happen within step `number` of velocity Verlet, once."""
    plain, calls = integrators.VelocityVerlet.step, []

    def step(self):
        calls.append(1)
        if len(calls) == number:
            action()
        return plain(self)

    monkeypatch.setattr(integrators.VelocityVerlet, "step", step)


def test_constant_energy(emt, checkpoint, water, tmp_path):
    out = tmp_path / "run"
    status, stdout, err = md(checkpoint, water, out, "--ensemble", "nve", "--steps", "45", "--timestep", "0.2")
    assert status == 0, err
    assert "45 steps (0.009 ps)" in stdout and "ns/day" in stdout and "drift" in stdout
    assert {path.name for path in out.iterdir()} == set(FILES)
    frames, log = ase.io.read(out / TRAJECTORY, ":"), read_log(out / LOG)
    # Every tenth step, and the last one.
    assert [frame.info["step"] for frame in frames] == [0, 10, 20, 30, 40, 45]
    assert log["step"].tolist() == [0, 10, 20, 30, 40] and log["time_ps"][1] == pytest.approx(0.002)
    for frame, row in zip(frames, range(5), strict=False):
        assert frame.get_potential_energy() == log["potential_eV"][row]
        assert frame.get_temperature() == pytest.approx(log["temperature_K"][row])
    assert log["temperature_K"][0] == pytest.approx(300)
    assert (log["total_eV"] == log["potential_eV"] + log["kinetic_eV"]).all()
    # Verlet's error is of second order: with vibrations of 10 fs and 0.2 fs steps a hundredth of the energy or less.
    assert np.ptp(log["total_eV"]) < 0.02 * log["kinetic_eV"].max() < np.ptp(log["potential_eV"])
    assert frames[0].get_momenta().sum(0) == pytest.approx(np.zeros(3), abs=1e-12)
    assert (out / PICTURE).read_bytes().startswith(b"\x89PNG")


def test_drift_is_the_slope_of_the_energy():
    time = np.array([1.0, 1.5, 2.0, 2.5])
    assert drift(time, -4000 + 0.003 * time) == pytest.approx(3, rel=1e-6)  # meV/ps
    assert drift(time[:1], time[:1]) == 0


def test_langevin_reaches_the_temperature(emt, checkpoint, tmp_path):
    copper = in_a_file(tmp_path, bulk("Cu", cubic=True).repeat((2, 1, 1)))
    options = ["--temperature", "600", "--friction", "0.1", "--timestep", "5", "--steps", "300", "--log-every", "1"]
    assert md(checkpoint, copper, tmp_path / "run", *options)[0] == 0
    temperature = read_log(tmp_path / "run" / LOG)["temperature_K"][30:]
    # 24 degrees of freedom fluctuate by sqrt(2 / 24) = 29 %, their mean over 70 relaxation times by 4 %.
    assert temperature.mean() == pytest.approx(600, rel=0.15)


@pytest.mark.parametrize("options", [[], ["--flexible"]])
def test_npt_moves_the_cell_and_keeps_what_is_conserved(emt, checkpoint, tmp_path, options):
    copper = in_a_file(tmp_path, bulk("Cu", cubic=True, a=3.7))
    options = ["--ensemble", "npt", "--pressure", "1", "--timestep", "2", "--steps", "60", *options]
    status, _, err = md(checkpoint, copper, tmp_path / "run", *options)
    assert status == 0, err
    log = read_log(tmp_path / "run" / LOG)
    assert abs(log["volume_A3"][-1] / log["volume_A3"][0] - 1) > 1e-4
    assert np.ptp(log["pressure_GPa"]) > 0
    # What thermostat and barostat take is counted: a hundredth of what the energy itself changes by.
    assert np.ptp(log["conserved_eV"]) < 0.05 * np.ptp(log["potential_eV"])
    cell = ase.io.read(tmp_path / "run" / TRAJECTORY).cell
    assert cell.cellpar()[3:] == pytest.approx([90] * 3, abs=1e-6 if len(options) == 8 else 1)


def test_velocities_constraints_and_masses_of_the_file(emt, checkpoint, tmp_path):
    atoms = molecule("H2O")
    atoms.set_momenta(np.full((3, 3), 0.1))
    atoms.set_masses([18, 1, 2])
    atoms.set_constraint(FixAtoms([1]))
    path = in_a_file(tmp_path, atoms)
    options = ["--ensemble", "nve", "--steps", "5", "--every", "1", "--keep-velocities"]
    assert md(checkpoint, path, tmp_path / "run", *options)[0] == 0
    frames = ase.io.read(tmp_path / "run" / TRAJECTORY, ":")
    assert frames[0].get_momenta()[0].tolist() == [0.1] * 3 and frames[0].get_masses().tolist() == [18, 1, 2]
    assert (frames[-1].positions[1] == atoms.positions[1]).all() and (
        frames[-1].positions[0] != atoms.positions[0]
    ).all()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_and_resume_goes_on_to_the_same_end(checkpoint, water, tmp_path, monkeypatch, number, code):
    options = ["--ensemble", "nve", "--steps", "25", "--every", "5"]
    assert md(checkpoint, water, tmp_path / "whole", *options)[0] == 0
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        at_step(patch, 13, lambda: signal.raise_signal(number))
        status, stdout, err = md(checkpoint, water, out, *options)
    assert status == code and "--resume" in stdout and "stopping after this step" in err
    assert [frame.info["step"] for frame in ase.io.read(out / TRAJECTORY, ":")] == [0, 5, 10, 13]
    assert md(checkpoint, water, out, *options, "--resume")[0] == 0
    states = [load_state(folder / STATE).arrays for folder in (tmp_path / "whole", out)]
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])
    assert (out / LOG).read_bytes() == (tmp_path / "whole" / LOG).read_bytes()
    assert (out / TRAJECTORY).read_bytes() == (tmp_path / "whole" / TRAJECTORY).read_bytes()


def test_a_run_that_is_over_can_be_made_longer(checkpoint, water, tmp_path):
    for steps, resume in ((13, []), (20, ["--resume"])):
        status, _, err = md(checkpoint, water, tmp_path / "run", "--steps", steps, *resume)
        assert status == 0, err
    assert md(checkpoint, water, tmp_path / "whole", "--steps", 20)[0] == 0
    states = [load_state(tmp_path / name / STATE).arrays for name in ("whole", "run")]
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])
    assert [frame.info["step"] for frame in ase.io.read(tmp_path / "run" / TRAJECTORY, ":")] == [0, 10, 20]


def test_precision(checkpoint, water, tmp_path):
    ends = []
    for dtype in ("float32", "float64"):
        assert md(checkpoint, water, tmp_path / dtype, "--steps", 5, "--dtype", dtype)[0] == 0
        ends.append(ase.io.read(tmp_path / dtype / TRAJECTORY).positions)
    assert 0 < np.abs(ends[0] - ends[1]).max() < 1e-4  # Å, in five steps with forces of 1e-7 relative error
    status, _, err = md(checkpoint, water, tmp_path / "float32", "--steps", 9, "--dtype", "float64", "--resume")
    assert status == 2 and "--resume: expected --dtype float32" in err


@pytest.mark.parametrize("name", ["energy", "forces"])
def test_what_is_not_finite_ends_the_run(emt, checkpoint, water, tmp_path, name):
    def spoil(results, call):
        if call == 9:  # the first belongs to the start
            results[name] = results[name] * np.nan

    emt.append(spoil)
    status, _, err = md(checkpoint, water, tmp_path / "run", "--ensemble", "nve", "--steps", 20)
    assert status == 2 and err.count("\n") == 1
    assert f"step 8: {name} {'are' if name == 'forces' else 'is'} not finite; the frame before, at 0.0035 ps" in err
    frames = ase.io.read(tmp_path / "run" / TRAJECTORY, ":")
    assert [frame.info["step"] for frame in frames] == [0, 7]
    assert np.isfinite(frames[-1].get_forces()).all() and np.isfinite(frames[-1].get_potential_energy())
    assert np.isfinite(frames[-1].positions).all() and (tmp_path / "run" / PICTURE).is_file()


def thrown(tmp_path, speed):
    """Water whose first hydrogen leaves at `speed`, Å/fs."""
    atoms = molecule("H2O")
    velocities = np.zeros((3, 3))
    velocities[1] = (atoms.positions[1] - atoms.positions[0]) / 0.97 * speed / units.fs
    atoms.set_velocities(velocities)
    return in_a_file(tmp_path, atoms)


def test_atoms_that_fly_apart_end_the_run(checkpoint, tmp_path):
    path = thrown(tmp_path, 0.2)
    options = ["--ensemble", "nve", "--keep-velocities", "--steps", "60"]
    status, _, err = md(checkpoint, path, tmp_path / "run", *options)
    assert status == 2 and err.count("\n") == 1
    assert "atom 1 (H) has flown apart: nobody is within 3 Å of it" in err
    last = ase.io.read(tmp_path / "run" / TRAJECTORY)
    distances = last.get_all_distances()[1, [0, 2]]
    assert 2.8 < distances.min() <= 3  # the step is 0.1 Å long
    assert md(checkpoint, path, tmp_path / "gas", *options, "--allow-apart")[0] == 0


def test_a_temperature_that_cannot_be_ends_the_run(checkpoint, tmp_path):
    options = ["--ensemble", "nve", "--keep-velocities", "--steps", "60"]
    status, _, err = md(checkpoint, thrown(tmp_path, 0.9), tmp_path / "run", *options)
    assert status == 2 and "step 1: the kinetic temperature is" in err and "above 10000" in err


def test_folders_in_use(checkpoint, water, tmp_path):
    out = tmp_path / "run"
    assert md(checkpoint, water, out, "--steps", 3)[0] == 0
    status, _, err = md(checkpoint, water, out, "--steps", 3)
    assert status == 2 and "--out: expected a new folder" in err and "--resume" in err and "--overwrite" in err
    (out / "notes.txt").write_text("mine")
    assert md(checkpoint, water, out, "--steps", 4, "--overwrite")[0] == 0
    assert load_state(out / STATE).step == 4 and (out / "notes.txt").read_text() == "mine"
    status, _, err = md(checkpoint, out / TRAJECTORY, out, "--frame", -1, "--overwrite")
    assert status == 2 and "trajectory.traj, which would be replaced" in err and (out / TRAJECTORY).exists()
    (out / STATE).unlink()
    status, _, err = md(checkpoint, water, out, "--resume")
    assert status == 2 and "--resume: there is no" in err
    status, _, err = md(checkpoint, water, water, "--steps", 3)
    assert status == 2 and "--out: expected a folder, got the file" in err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--timestep", "0.25"], "--resume: expected --timestep 0.5 as in"),
        (["--ensemble", "nve"], "--resume: expected --ensemble langevin as in"),
        (["--seed", "1"], "--resume: expected --seed 0 as in"),
        (["--overwrite"], "--overwrite: expected none with --resume"),
    ],
)
def test_another_run_is_not_resumed(checkpoint, water, tmp_path, options, text):
    out = tmp_path / "run"
    assert md(checkpoint, water, out, "--steps", 3)[0] == 0
    status, _, err = md(checkpoint, water, out, "--steps", 5, "--resume", *options)
    assert status == 2 and text in err


def test_the_integrator_of_another_ase_is_not_resumed(checkpoint, water, tmp_path):
    out = tmp_path / "run"
    assert md(checkpoint, water, out, "--steps", 3)[0] == 0
    saved = dict(np.load(out / STATE))
    for wrong in (
        {"integrator/thermostat.eta": np.zeros(1)}, {"integrator/c1": None}, {"integrator/masses": np.zeros(2)}
    ):  # fmt: skip
        numbers = {name: value for name, value in (saved | wrong).items() if value is not None}
        np.savez(out / STATE, **numbers)
        status, _, err = md(checkpoint, water, out, "--steps", 5, "--resume")
        assert status == 2 and "expected the numbers of Langevin as in this version of ASE" in err


def test_another_structure_or_a_shorter_file_is_not_resumed(checkpoint, water, tmp_path):
    out = tmp_path / "run"
    assert md(checkpoint, water, out, "--steps", 3)[0] == 0
    other = in_a_file(tmp_path, molecule("H2O"))
    status, _, err = md(checkpoint, other, out, "--steps", 5, "--resume")
    assert status == 2 and "--resume: expected the structure that the run" in err
    (out / LOG).write_bytes(b"step\n")
    status, _, err = md(checkpoint, water, out, "--steps", 5, "--resume")
    assert status == 2 and "log.csv: expected at least the" in err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--ensemble", "nvt"], "--ensemble: expected nve, langevin, npt, got 'nvt'"),
        (["--ensemble", "nve", "--pressure", "1"], "--pressure: expected with --ensemble npt only, got 1 with nve"),
        (["--friction", "0.1", "--ensemble", "nve"], "--friction: expected with --ensemble langevin only"),
        (["--pressure", "0"], "--pressure: expected with --ensemble npt only, got 0 with langevin"),
        (["--flexible"], "--flexible: expected with --ensemble npt only, got it with langevin"),
        (["--ensemble", "npt"], "--ensemble npt: expected a structure that repeats in three directions"),
        (["--keep-velocities"], "--keep-velocities: expected a structure with velocities"),
        (["--keep-velocities", "--ensemble", "nve", "--temperature", "9"], "--temperature: expected none with --keep"),
        (["--timestep", "0"], "--timestep: expected a number above 0, got 0"),
        (["--timestep", "nan", "--steps", "4"], "--timestep: expected a number above 0, got nan"),
        (["--temperature", "-1"], "--temperature: expected a number of at least 0, got -1"),
        (["--temperature", "1e6"], "--temperature: expected at most 10000 K"),
        (["--steps", "3", "--picoseconds", "1"], "--picoseconds: expected none with --steps"),
        (["--picoseconds", "1e-9"], "--picoseconds: expected the time of a step, 0.5 fs, or more, got 1e-09"),
        (["--picoseconds", "1e300", "--timestep", "1e-10"], "--picoseconds: expected a number of steps"),
        (["--frame", "2"], "--frame: expected -1 to 0, got 2"),
        (["--dtype", "half"], "--dtype: expected float32 or float64, got 'half'"),
        (["--device", "nowhere"], "--device: expected a device"),
    ],
)
def test_wrong_options_are_named(checkpoint, water, tmp_path, options, text):
    status, _, err = md(checkpoint, water, tmp_path / "run", *options)
    assert status == 2 and text in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_wrong_structures_are_named(checkpoint, water, tmp_path):
    several = in_a_file(tmp_path, [molecule("H2O"), molecule("CH4")])
    assert md(checkpoint, several, tmp_path / "run", "--frame", 1, "--steps", 2)[0] == 0
    assert ase.io.read(tmp_path / "run" / TRAJECTORY).get_chemical_formula() == "CH4"
    status, _, err = md(checkpoint, tmp_path / "none.xyz", tmp_path / "other")
    assert status == 2 and "none.xyz: no such file" in err
    fixed = bulk("Cu", cubic=True)
    fixed.set_constraint(FixAtoms([0]))
    status, _, err = md(checkpoint, in_a_file(tmp_path, fixed), tmp_path / "other", "--ensemble", "npt")
    assert status == 2 and "--ensemble npt: expected a structure without constraints, got FixAtoms" in err
    for constraint, text in (
        (FixAtoms(range(4)), "some atoms that are free to move, got none"),
        (MirrorForce(0, 1), "such of which ASE knows how many coordinates they fix, got MirrorForce"),
    ):
        fixed.set_constraint(constraint)
        status, _, err = md(checkpoint, in_a_file(tmp_path, fixed), tmp_path / "other")
        assert status == 2 and f"constraints: expected {text}" in err
    fixed.set_constraint()
    fixed.set_masses([63, 0, 65, 63])
    status, _, err = md(checkpoint, in_a_file(tmp_path, fixed), tmp_path / "other")
    assert status == 2 and "masses: expected numbers above 0, got 0 for atom 1" in err
    assert not (tmp_path / "other").exists()
