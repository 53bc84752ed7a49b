"""The measurements on trained models: smoothness, dynamics, and the queue of trainings."""

import argparse
import csv
import importlib
import math
import os
import re
import signal
import sys
import threading
import time

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.lj import LennardJones
from molecules import EXACT
from training_runs import tiny_config

from spherenet_fast.checks.lines import bonds
from spherenet_fast.data import read_molecules, sample_path
from spherenet_fast.training import load_config, train


@pytest.fixture
def run(monkeypatch, capsys, set_threads):
    """Runs a program of `bench` in this process, which has imported what takes seconds; returns what it prints."""

    def run_module(module, *arguments, status=0):
        set_threads(1)
        monkeypatch.setattr(sys, "argv", [module, *map(str, arguments)])
        try:
            importlib.import_module(f"bench.{module}").main()
            code = 0
        except SystemExit as stopped:
            code = stopped.code or 0
        output = "".join(capsys.readouterr())
        assert code == status, output
        return output

    return run_module


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Models of a dozen steps: {"smooth": path, "paper": path}."""
    folder = tmp_path_factory.mktemp("runs")
    for name, variant in (("smooth", "smooth"), ("paper", "full")):
        train(tiny_config(f"ablation:{variant}", model__kernels="true"), folder / name)
    return {name: folder / name / "best.ckpt" for name in ("smooth", "paper")}


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# ---- smoothness ------------------------------------------------------------------------------------------------------


def test_smooth_and_not(run, checkpoints, tmp_path):
    out = tmp_path / "smoothness.csv"
    options = ["--steps", 20, "--segments", 6, "--points", 150, "--threads", 1, "--out", out]
    run("potentials.smoothness", *checkpoints.values(), *options)
    rows = {row["torsion"]: row for row in read(out)}
    for torsion, row in rows.items():
        assert (row["checkpoint"], row["seed"], row["steps"]) == (f"{torsion}/best.ckpt", "0", "12")
        assert (row["bonds"], row["segments"], row["points"], row["dtype"]) == ("8", "6", "150", "float64")
        assert row["data"] == "ethanol and qm9"
    assert [rows["smooth"][name] for name in ("energy_differences_exceeding", "segments_with_force_jump")] == ["0", "0"]
    assert int(rows["paper"]["segments_exceeding"]) >= 3 and int(rows["paper"]["segments_with_force_jump"]) >= 3
    # over 1.5e-8 Å a smooth energy changes by a slope and no more; the paper's by what it jumps, untrained as it is
    assert float(rows["paper"]["energy_jump_meV"]) > 100 * float(rows["smooth"]["energy_jump_meV"])


def test_the_picture_of_a_neighbor_that_is_overtaken(run, checkpoints, tmp_path):
    run("potentials.smoothness", *checkpoints.values(), "--points", 60, "--picture", tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000 and list(tmp_path.iterdir()) == [tmp_path / "a.png"]


def test_learning_curves(run, checkpoints, tmp_path):
    from bench.training.learning_curves import draw

    runs = [checkpoint.parent for checkpoint in checkpoints.values()]
    run("training.learning_curves", *runs, "-o", tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000
    (axes,) = draw(runs).axes
    assert axes.get_title() == "ethanol, forces"
    assert [line.get_label() for line in axes.lines] == ["SphereNet, smooth, seed 0", "SphereNet, seed 0"]
    assert all(line.get_xdata()[-1] == 12 for line in axes.lines)
    assert "expected the folder of a run" in run(
        "training.learning_curves", tmp_path, "-o", tmp_path / "b.png", status=2
    )


def test_wrong_words_are_one_line(run, checkpoints, tmp_path):
    output = run("potentials.smoothness", checkpoints["smooth"], "--data", tmp_path / "none.npz", status=2)
    assert "none.npz" in output and "Traceback" not in output
    output = run("potentials.smoothness", checkpoints["smooth"], "--data", "fcc111", status=2)
    assert "fcc111: expected structures of the elements of the training set" in output
    output = run("potentials.dynamics", tmp_path / "none.ckpt", "ethanol", status=2)
    assert "none.ckpt: no such checkpoint" in output and "Traceback" not in output


def test_random_segments():
    from bench.potentials import motions

    molecules = read_molecules("ethanol", dtype=torch.float64)
    lines = motions.segments([molecules], 9, cutoff=5.0)
    again = motions.segments([molecules], 9, cutoff=5.0)
    assert all(torch.equal(a, b) for one, two in zip(lines, again) for a, b in zip(one[:3], two[:3]))
    assert all(line.closest() > motions.CLOSEST for line in lines)
    assert [round(line.length(), 6) for line in lines] == [1, 1, 5] * 3
    for line in lines[1::3]:  # on a line with two others halfway
        pos = (line.start + line.move / 2)[:, None] - line.start
        atom = int(line.move.norm(dim=1).argmax())
        toward = torch.nn.functional.normalize(line.start - (line.start + line.move / 2)[atom], dim=1)
        others = [n for n in range(len(pos)) if n != atom]
        alike = (toward[others] @ toward[others].T).triu(1)
        assert alike.max() == pytest.approx(1, abs=1e-12)
    close = molecules[0]
    with pytest.raises(ValueError, match="expected a geometry with room"):
        motions.segment(close.z, 0.2 * close.pos, motions.KINDS[0], 5.0, torch.Generator())


def test_a_neighbor_is_overtaken_halfway():
    from bench.potentials import motions

    frame = read_molecules("ethanol", dtype=torch.float64)[0]
    line = motions.overtaking(frame.z, frame.pos)
    pos, atom = line.start + line.move / 2, int(line.move.norm(dim=1).argmax())

    def azimuths(a, b):
        """Of the atom and the others about b - a."""
        axis = torch.nn.functional.normalize(pos[b] - pos[a], dim=0)
        across = pos - pos[a] - ((pos - pos[a]) @ axis)[:, None] * axis
        turned = torch.atan2(torch.linalg.cross(across[atom].expand_as(across), across) @ axis, across @ across[atom])
        return [abs(float(turned[n])) for n in range(len(pos)) if n not in (a, b, atom) and across[n].norm() > 0.4]

    pairs = [(a, b) for a, b in bonds(frame.z, frame.pos).tolist() if atom not in (a, b)]
    assert min(min(azimuths(a, b)) for a, b in pairs) < 1e-9
    with pytest.raises(ValueError, match="can overtake"):
        motions.overtaking(*EXACT["carbon dioxide"])


# ---- dynamics --------------------------------------------------------------------------------------------------------


def test_dynamics_of_a_checkpoint(run, checkpoints, tmp_path):
    out = tmp_path / "dynamics.csv"
    output = run(
        "potentials.dynamics", checkpoints["smooth"], "ethanol", "--name", "a", "--relax-steps", 2,
        "--picoseconds", 0.01, "--threads", 1, "--out", out,
    )  # fmt: skip
    assert "drift_meV_per_atom_ps" in output
    rows = read(out)
    assert [row["dtype"] for row in rows] == ["float32", "float64"]
    for row in rows:
        assert (row["structure"], row["atoms"], row["relax_steps"], row["converged"]) == ("a", "9", "2", "no")
        assert (row["checkpoint"], row["torsion"], row["steps"]) == ("smooth/best.ckpt", "smooth", "12")
        assert all(math.isfinite(float(row[name])) for name in ("lowest_cm1", "drift_meV_per_atom_ps"))
        assert row["reference_mae_cm1"] == "" and float(row["largest_step_meV"]) > 0


def argon(distance=1.0):
    """Two atoms of argon around a distance, in units of the minimum, with the frequency in 1/cm."""
    epsilon, sigma = 0.0103, 3.4
    calculator = LennardJones(epsilon=epsilon, sigma=sigma, rc=1000.0, smooth=False)
    atoms = Atoms("Ar2", [[0, 0, 0], [distance * 2 ** (1 / 6) * sigma, 0, 0]], calculator=calculator)
    curvature = 36 * 2 ** (2 / 3) * epsilon / sigma**2  # 72 epsilon over the square of the distance
    omega = math.sqrt(2 * curvature / atoms.get_masses()[0])  # in 1 / ASE's unit of time
    return atoms, units._hbar * omega * units.s / units._e / units.invcm


def test_frequencies():
    from bench.potentials.dynamics import frequencies_of, vibrations

    atoms, expected = argon()
    found = vibrations(atoms)
    assert found[-1] == pytest.approx(expected, rel=1e-3)  # differences of 0.01 Å of an anharmonic force
    stretched, _ = argon(1.3)
    assert vibrations(stretched)[0] < -5  # imaginary
    reference = np.array([-80.0, -4, -1, 0, 0, 1, 3, 100, 200])
    # of nine modes the six nearest to zero are rigid; all others of the first differ by 10 from the second
    assert frequencies_of(reference + [-10, 0, 0, 0, 0, 0, 0, 10, -10], reference) == ["1", "1", "-90", "4", "10"]
    assert frequencies_of(reference, None)[-1] == ""


def test_energy_that_drifts():
    from spherenet_fast.checks.energy import constant_energy, drift

    time_ps = 1e-3 * np.arange(2001)
    energies = -100 + 1e-3 * (6 * time_ps + 0.5 * (-1.0) ** np.arange(2001))
    per_atom, whole, step, fluctuation = drift(energies, timestep=1.0, atoms=3)
    assert per_atom == pytest.approx(2, abs=1e-3) and whole == pytest.approx(12, abs=1e-6)
    assert step == pytest.approx(1.006, abs=1e-3) and fluctuation == pytest.approx(0.5, abs=1e-3)
    assert np.isnan(drift(energies[:1], 1.0, 3)).all()
    atoms, _ = argon(1.02)
    found, seconds = constant_energy(atoms, timestep=2.0, picoseconds=1.0, temperature=50.0, seed=0)
    assert seconds > 0 and len(found) == 501
    assert found[0] > -0.0103 and np.ptp(found) < 1e-5  # of a minimum 0.0103 eV deep
    assert np.abs(atoms.get_momenta().sum(0)).max() < 1e-10


def test_structures_to_start_from(tmp_path):
    from bench.potentials.dynamics import read_structure

    z, pos = EXACT["water"]
    frequencies = np.arange(9.0)
    np.savez(tmp_path / "own.npz", z=z, minimum_pos=pos, frequencies_cm1=frequencies)
    atoms, found = read_structure(str(tmp_path / "own.npz"))
    assert atoms.get_chemical_formula() == "H2O" and np.array_equal(atoms.positions, pos)
    assert np.array_equal(found, frequencies)
    np.savez(tmp_path / "own.npz", z=z, minimum_pos=pos, frequencies_cm1=frequencies[:-1])
    with pytest.raises(ValueError, match=r"frequencies_cm1: expected shape \[9\], got \[8\]"):
        read_structure(str(tmp_path / "own.npz"))
    (tmp_path / "broken.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match="broken.npz: expected a NumPy archive"):
        read_structure(str(tmp_path / "broken.npz"))
    atoms.write(tmp_path / "own.xyz")
    assert len(read_structure(str(tmp_path / "own.xyz"))[0]) == 3
    with pytest.raises(ValueError, match="fcc111: expected a molecule"):
        read_structure("fcc111")
    ethanol = read_molecules("ethanol", dtype=torch.float64)
    lowest = ethanol[int(ethanol.y[:, 0].argmin())]
    assert np.array_equal(read_structure("ethanol")[0].positions, lowest.pos)


# ---- replicas --------------------------------------------------------------------------------------------------------


def test_copies_in_a_batch_and_one_by_one(run, checkpoints, tmp_path):
    pytest.importorskip("torch_sim", reason="torch-sim-atomistic is for Python 3.11 and newer: the extra `engines`")
    molecule("CH3CH2OH").write(tmp_path / "ethanol.xyz")
    options = ["--copies", 2, "--repeats", 2, "--threads", 1]
    output = run("potentials.replicas", checkpoints["smooth"], tmp_path / "ethanol.xyz", *options)
    [times] = re.findall(r"2 copies, 1 threads: batch (\S+) ms, one by one (\S+) ms\nratio (\S+)\n", output)
    batch, apart, ratio = map(float, times)
    assert ratio == pytest.approx(batch / apart, rel=0.2)  # times are printed to 0.1 ms


# ---- the queue of trainings ------------------------------------------------------------------------------------------


# Stands in for the command `spherenet-fast train`, which takes seconds to begin: saves, then waits to be interrupted,
# or copies a finished run if there is a file "go".
TRAIN = """
import os, pathlib, shutil, signal, sys, time
here, finished = map(pathlib.Path, sys.argv[1:3])
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
with open(here / "calls.txt", "a") as file:
    print(sys.argv[3], out.name, "--resume" in sys.argv, file=file)
if (here / "go").exists():
    shutil.copytree(finished, out, dirs_exist_ok=True)
    sys.exit(0)
signal.signal(signal.SIGINT, lambda *_: os._exit(130))
out.mkdir()
(out / "last.ckpt").touch()
time.sleep(60)
"""


def test_a_queue_that_is_stopped_and_goes_on(run, checkpoints, tmp_path, monkeypatch):
    from bench.training import train_ablation

    (tmp_path / "ethanol.npz").symlink_to(sample_path("ethanol"))
    command = [sys.executable, "-c", TRAIN, str(tmp_path), str(checkpoints["smooth"].parent)]
    monkeypatch.setattr(train_ablation, "TRAIN", command)
    words = [
        "training.train_ablation",
        tmp_path,
        "--molecules",
        "ethanol",
        "--models",
        "smooth",
        "paper",
        "--settings",
        "x",
    ]
    words += ["--out", tmp_path / "runs", "--results", tmp_path / "csv"]

    def interrupt():
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob("runs/*/last.ckpt")) and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGTERM)
    try:
        threading.Thread(target=interrupt).start()
        run(*words, status=130)
        assert not (tmp_path / "csv").exists()
        (tmp_path / "go").touch()
        for _ in range(2):  # the second time all have finished
            output = run(*words, "--jobs", 2)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "ethanol-smooth-seed0-4000: energy" in output and "ethanol-paper-seed0-4000: energy" in output
    calls = (tmp_path / "calls.txt").read_text().splitlines()
    smooth, paper = "ethanol-smooth-seed0-4000", "ethanol-paper-seed0-4000"
    assert calls[0] == f"ablation:smooth {smooth} False"
    assert sorted(calls[1:]) == [f"ablation:full {paper} False", f"ablation:smooth {smooth} True"]
    rows = read(tmp_path / "csv" / "ablation.csv")
    assert [(row["model"], row["data"], row["target"]) for row in rows] == [
        ("SphereNet, smooth", "ethanol", target) for target in ("energy", "forces")
    ]  # of both, as both are copies
    assert {row["experiment"] for row in rows} == {"ablation"} and {row["settings"] for row in rows} == {"x"}
    assert "expected a file benzene.npz" in run("training.train_ablation", tmp_path, "--molecules", "benzene", status=2)


def test_what_the_queue_trains(tmp_path):
    from bench.training.train_ablation import BATCH, MODELS, Queue, Run

    queue = Queue(argparse.Namespace(folder=tmp_path, more=["data.test=100"], settings=""))
    for model, torsion in zip(MODELS, ("smooth", "smooth_even", "paper", None, None), strict=True):
        one = Run("toluene", 1, model, "revised", 4000)
        config = load_config(f"ablation:{MODELS[model]}", queue.overrides(one))
        assert (config.model.torsion if config.model.use_torsion else None) == torsion
        assert config.model.use_angle == (model != "no_angle")
        assert (config.training.batch_size, config.training.max_steps, config.training.seed) == (4, 4000, 1)
        assert (config.data.labels, config.data.test, one.data) == ("revised", 100, "toluene, rMD17")
    assert set(BATCH.values()) == {4, 8}
