"""``spherenet-fast relax``: converges, writes, says so, and refuses."""

import signal

import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule
from commands import call

from spherenet_fast.dynamics import relaxation


@pytest.fixture
def structures(tmp_path):
    """A file with two rattled molecules."""
    rattled = [molecule("H2O"), molecule("CH3OH")]
    for atoms in rattled:
        atoms.rattle(0.03, seed=1)
    ase.io.write(tmp_path / "structures.xyz", rattled)
    return tmp_path / "structures.xyz"


@pytest.mark.parametrize("optimizer", ["bfgs", "lbfgs", "fire"])
def test_structures_relax_one_after_another(emt, checkpoint, structures, tmp_path, optimizer):
    out = tmp_path / "relaxed.extxyz"
    status, stdout, err = call("relax", checkpoint, structures, "-o", out, "--optimizer", optimizer)
    assert status == 0, err
    assert stdout.count(": converged after ") == 2 and f"2 structures in {out}" in stdout
    relaxed, way = ase.io.read(out, ":"), ase.io.read(tmp_path / "relaxed.traj", ":")
    for number, atoms in enumerate(relaxed):
        assert np.linalg.norm(atoms.get_forces(), axis=1).max() < 0.01 and atoms.info["converged"]
        steps = [frame for frame in way if frame.info["structure"] == number]
        assert [frame.info["step"] for frame in steps] == list(range(atoms.info["step"] + 1))
        assert atoms.get_potential_energy() < steps[0].get_potential_energy()
        assert atoms.positions == pytest.approx(steps[-1].positions, abs=1e-7)  # of eight decimals in the file
        assert len(steps[0]) == len(atoms)


def test_a_cell_relaxes(emt, checkpoint, tmp_path):
    ase.io.write(tmp_path / "copper.traj", bulk("Cu", cubic=True, a=3.8))
    out = tmp_path / "relaxed.extxyz"
    status, _, err = call("relax", checkpoint, tmp_path / "copper.traj", "-o", out, "--cell")
    assert status == 0, err
    relaxed = ase.io.read(out)
    assert relaxed.cell.cellpar() == pytest.approx([3.59] * 3 + [90] * 3, rel=1e-2)  # of EMT's copper
    assert np.abs(relaxed.get_stress()).max() < 1e-3  # eV/Å^3; 0.01 eV/Å on the vectors of 47 Å^3


def test_what_has_not_converged_is_said(emt, checkpoint, structures, tmp_path):
    out = tmp_path / "relaxed.extxyz"
    status, stdout, _ = call("relax", checkpoint, structures, "-o", out, "--steps", 1)
    assert status == 3 and stdout.count(": not converged after 1 steps") == 2
    assert [atoms.info["converged"] for atoms in ase.io.read(out, ":")] == [False, False]


def test_forces_that_are_not_finite_leave_the_last_good_frame(emt, checkpoint, structures, tmp_path):
    def spoil(results, call):
        if call == 4:
            results["forces"] = results["forces"] * np.inf

    emt.append(spoil)
    out = tmp_path / "relaxed.extxyz"
    status, _, err = call("relax", checkpoint, structures, "-o", out)
    assert status == 2 and "structure 0: step 3: forces are not finite; the frame before is written" in err
    last = ase.io.read(out)
    assert last.info["step"] == 2 and not last.info["converged"] and np.isfinite(last.get_forces()).all()


def test_a_signal_keeps_what_is_done(emt, checkpoint, structures, tmp_path, monkeypatch):
    plain = relaxation.BFGS.step

    def step(self):
        if self.nsteps == 2:
            signal.raise_signal(signal.SIGINT)
        return plain(self)

    monkeypatch.setattr(relaxation.BFGS, "step", step)
    out = tmp_path / "relaxed.extxyz"
    status, _, err = call("relax", checkpoint, structures, "-o", out)
    assert status == 130 and "stopping after this step" in err
    assert [atoms.info["step"] for atoms in ase.io.read(out, ":")] == [3]
    assert len(ase.io.read(tmp_path / "relaxed.traj", ":")) == 4


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--optimizer", "newton"], "--optimizer: expected bfgs, lbfgs, fire, got 'newton'"),
        (["--cell"], "--cell: expected structures that repeat in three directions"),
        (["--fmax", "0"], "--fmax: expected a number above 0, got 0"),
        (["--fmax", "nan"], "--fmax: expected a number above 0, got nan"),
    ],
)
def test_wrong_options_are_named(checkpoint, structures, tmp_path, options, text):
    status, _, err = call("relax", checkpoint, structures, "-o", tmp_path / "out.xyz", *options)
    assert status == 2 and text in err and not (tmp_path / "out.xyz").exists()


def test_what_one_of_the_structures_lacks_shows_before_the_first_moves(checkpoint, structures, tmp_path):
    found = ase.io.read(structures, ":")
    found[1].positions[1] = found[1].positions[0]
    ase.io.write(structures, found)
    status, _, err = call("relax", checkpoint, structures, "-o", tmp_path / "out.xyz")
    assert status == 2 and "frame 1 of the structures: pos: expected atoms at least" in err
    assert not (tmp_path / "out.xyz").exists() and not (tmp_path / "out.traj").exists()


def test_files_that_are_there_are_not_replaced(emt, checkpoint, structures, tmp_path):
    out = tmp_path / "out.xyz"
    (tmp_path / "out.traj").write_text("mine")
    status, _, err = call("relax", checkpoint, structures, "-o", out)
    assert status == 2 and "out.traj is there already; --overwrite replaces it" in err
    status, _, err = call("relax", checkpoint, structures, "-o", tmp_path / "other.traj")
    assert status == 2 and "--out: expected a name that does not end in .traj" in err
    assert call("relax", checkpoint, structures, "-o", out, "--overwrite")[0] == 0
    status, _, err = call("relax", checkpoint, tmp_path / "out.traj", "-o", out, "--overwrite")
    assert status == 2 and "out.traj, which would be replaced" in err and (tmp_path / "out.traj").exists()
