"""``spherenet-fast sample``: labeled frames, runs that stop and go on, and frames that a committee is unsure of."""

import signal
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT
from commands import call
from molecules import with_outputs
from training_runs import TINY_MODEL

from spherenet_fast.calculators.committee import Committee
from spherenet_fast.calculators.named import named_calculator, parsed_options
from spherenet_fast.data import read_molecules
from spherenet_fast.dynamics import integrators, sampling
from spherenet_fast.dynamics.sampling import Plan, disagreement, femtoseconds, working_folder
from spherenet_fast.models import SphereNet
from spherenet_fast.training import Potential

QUICK = ["--calculator", "ase.calculators.emt:EMT", "--timestep", 0.5, "--every", "1fs", "--equilibrate", "2fs"]


def sample(structure, out, *options):
    return call("sample", structure, "-o", out, *QUICK, *options)


@pytest.fixture
def checkpoints(tmp_path):
    """Two potentials that differ."""
    paths = [tmp_path / f"{seed}.ckpt" for seed in (1, 2)]
    for seed, path in enumerate(paths):
        torch.manual_seed(seed)
        model = SphereNet(**TINY_MODEL).double()
        with_outputs(model)
        Potential.wrap(model, scale=0.02, unit="eV").save(path)
    return paths


def at_step(monkeypatch, number, action):
    """Make `action` happen within step `number` of Langevin dynamics, once."""
    plain, calls = integrators.Langevin.step, []

    def step(self, *arguments, **options):
        calls.append(1)
        if len(calls) == number:
            action()
        return plain(self, *arguments, **options)

    monkeypatch.setattr(integrators.Langevin, "step", step)


def test_frames_have_the_labels_of_the_calculator(water, tmp_path):
    out = tmp_path / "data.extxyz"
    status, stdout, err = sample(water, out, "--temperature", 100, "--temperature", 200, "--frames", 7)
    assert status == 0, err
    assert f"7 frames in {out}" in stdout
    frames = ase.io.read(out, ":")
    assert [frame.info["temperature_K"] for frame in frames] == [100.0] * 4 + [200.0] * 3
    moved = ase.io.read(tmp_path / "data-sampling" / "100K" / "trajectory.traj", ":")
    assert [frame.info["step"] for frame in moved] == list(range(0, 13, 2))  # 2 fs, and four frames each 1 fs
    for frame, other in zip(frames[:4], moved[3:], strict=True):
        assert np.array_equal(frame.positions, other.positions)  # every digit
        assert np.array_equal(frame.get_forces(), other.get_forces())
        assert frame.get_potential_energy() == other.get_potential_energy()
    for frame in frames:
        fresh = frame.copy()
        fresh.calc = EMT()
        assert frame.get_potential_energy() == pytest.approx(fresh.get_potential_energy(), abs=1e-10)  # rounding
        assert frame.get_forces() == pytest.approx(fresh.get_forces(), abs=1e-9)
        assert not frame.has("momenta")
    molecules = read_molecules(str(out))
    assert len(molecules) == 7 and molecules.forces.shape == (21, 3) and "energy" in " ".join(molecules.names)


@pytest.mark.parametrize("number", [5, 11])
def test_a_run_that_is_stopped_goes_on_to_the_same_file(water, tmp_path, monkeypatch, number):
    options = ["--temperature", 100, "--temperature", 200, "--frames", 4]
    assert sample(water, tmp_path / "whole.extxyz", *options)[0] == 0
    out = tmp_path / "data.extxyz"
    with monkeypatch.context() as patch:
        at_step(patch, number, lambda: signal.raise_signal(signal.SIGTERM))  # 8 steps at each temperature
        status, stdout, _ = sample(water, out, *options)
    assert status == 143 and "--resume goes on" in stdout and not out.exists()
    status, _, err = sample(water, out, *options)
    assert status == 2 and "--resume" in err
    status, _, err = sample(water, out, *options, "--resume", "--every", "2fs")
    assert status == 2 and "--resume: expected --every 1.0 as in" in err
    assert sample(water, out, *options, "--resume")[0] == 0
    assert out.read_bytes() == (tmp_path / "whole.extxyz").read_bytes()


def test_a_cell_keeps_its_stress(tmp_path):
    atoms = bulk("Cu", cubic=True)
    ase.io.write(tmp_path / "cu.extxyz", atoms)
    assert sample(tmp_path / "cu.extxyz", tmp_path / "data.extxyz", "--frames", 2)[0] == 0
    frame = ase.io.read(tmp_path / "data.extxyz", -1)
    assert frame.pbc.all() and frame.get_stress().shape == (6,) and np.abs(frame.get_stress()).max() > 1e-4


def test_frames_that_a_committee_disagrees_on(water, checkpoints, tmp_path, monkeypatch):
    out = tmp_path / "data.extxyz"
    options = ["--frames", 3, "--candidates", 4, *[word for path in checkpoints for word in ("--checkpoint", path)]]
    labels, plain = [], sampling._label

    def label(*arguments):
        labels.append(1)
        if len(labels) == 2:
            signal.raise_signal(signal.SIGINT)
        return plain(*arguments)

    monkeypatch.setattr(sampling, "_label", label)
    status, stdout, _ = sample(water, out, *options)
    assert status == 130 and "--resume goes on" in stdout and len(labels) == 2
    status, stdout, err = sample(water, out, *options, "--resume")
    assert status == 0, err
    assert len(labels) == 3 and "12 frames, disagreement" in err  # those of the first part are not computed again
    candidates = ase.io.read(working_folder(out) / "500K" / "trajectory.traj", ":")[3:]
    expected = np.sort(disagreement(Committee(checkpoints), candidates))[::-1][:3]
    frames = ase.io.read(out, ":")
    # positions and members are the same, the batches are not
    assert [frame.info["disagreement_eV_per_Ang"] for frame in frames] == pytest.approx(expected, rel=1e-9)
    for frame in frames:
        fresh = frame.copy()
        fresh.calc = EMT()
        assert frame.get_forces() == pytest.approx(fresh.get_forces(), abs=1e-9)  # of the reference, not of the mean


def test_a_calculator_that_fails_ends_the_run(water, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("unreliable.py").write_text(
        "from ase.calculators.emt import EMT\n"
        "class Failing(EMT):\n    calls = 0\n    def calculate(self, *arguments):\n        Failing.calls += 1\n"
        "        if Failing.calls == 4:\n            raise RuntimeError('no convergence')\n"
        "        super().calculate(*arguments)\n"
        "def calculator(**options):\n    return Failing(**options)\nnothing = 3\ndef other():\n    return 3\n"
    )
    status, _, err = sample(water, "data.extxyz", "--calculator", "unreliable:calculator", "--frames", 9)
    assert status == 2 and err.count("\n") == 1 and "step 3: the calculator failed: no convergence" in err
    for name, text in (("unreliable:nothing", "expected a class or a function, got int"),
                       ("unreliable:other", "expected a calculator of ASE, got int"),
                       ("unreliable:none", "the module unreliable has no none")):  # fmt: skip
        with pytest.raises(ValueError, match=text):
            named_calculator(name)


def test_calculators_by_name(monkeypatch):
    assert named_calculator("ase.calculators.emt:EMT", {"asap_cutoff": True}).parameters["asap_cutoff"] is True
    for name, options, text in (
        ("emt", {}, "expected tblite:METHOD or MODULE:NAME, as ase.calculators.emt:EMT, got 'emt'"),
        ("no_such_package:A", {}, "there is no module no_such_package"),
        ("ase.build:molecule", {}, "TypeError"),
        ("ase.calculators.lj:LennardJones", {"sigma": "x"}, "--calculator ase.calculators.lj:LennardJones: "),
    ):
        with pytest.raises(ValueError, match=text):
            named_calculator(name, options)
    assert parsed_options(["charge=1", "solvation=[alpb, water]"]) == {"charge": 1, "solvation": ["alpb", "water"]}
    with pytest.raises(ValueError, match="--option: expected KEY=VALUE, as charge=1, got 'charge'"):
        parsed_options(["charge"])


def test_times():
    assert [femtoseconds(text, "--every") for text in ("5fs", "0.005 ps", "5")] == [5.0, 5.0, 5.0]
    with pytest.raises(ValueError, match="--every: expected a time, as 5fs or 0.5ps, got '5 steps'"):
        femtoseconds("5 steps", "--every")
    plan = Plan(frames=5, temperatures=(300.0, 500.0))
    assert [plan.share(number) for number in (0, 1)] == [3, 2] and plan.settings(0).steps == 1000 + 3 * 10


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--every", "0.7fs"], "--every: expected a multiple of the timestep, 0.5 fs, got 0.7 fs"),
        (["--temperature", 300, "--temperature", 300], "--temperature: expected one or several that differ"),
        (["--temperature", -3], "--temperature: expected a number of at least 0, got -3"),
        (["--timestep", 0], "expected a multiple of the timestep"),
        (["--checkpoint", "a.ckpt"], "--checkpoint: expected at least two"),
        (["--out", "data.traj"], "--out: expected a name that ends in .extxyz or .xyz, got 'data.traj'"),
    ],
)
def test_wrong_options_are_named(water, tmp_path, monkeypatch, options, text):
    monkeypatch.chdir(tmp_path)
    status, _, err = sample(water, "data.extxyz", *options)
    assert status == 2 and text in err and err.count("\n") == 1
    assert not Path("data-sampling").exists()
