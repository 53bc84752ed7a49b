"""Slabs and relaxations: readers, fixed atoms, held-out elements, shares of errors within a limit."""

import re
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase.build import fcc111
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io.trajectory import Trajectory
from molecules import with_outputs
from training_runs import TINY_MODEL, settings, tiny_config
from typer.testing import CliRunner

from spherenet_fast.cli import app
from spherenet_fast.data import Batch, Molecules, from_atoms, hold_out, read_molecules
from spherenet_fast.models import SphereNet
from spherenet_fast.training import Potential, train
from spherenet_fast.training.callbacks.logs import read_metrics
from spherenet_fast.training.config.files import load_config
from spherenet_fast.training.metrics import ErrorSum, evaluate
from spherenet_fast.training.module import TrainingModule
from spherenet_fast.training.normalization import fit_normalization
from spherenet_fast.training.optimization.losses import error_loss, total_loss

CONFIGS_FOLDER = Path(__file__).parents[2] / "spherenet_fast/configs"


def archive(path, frames=(2, 3), **changes):
    """Two relaxations of three and two atoms, with so many frames each."""
    draw = np.random.default_rng(0)
    sizes = np.array([3, 2])
    atoms = sum(f * n for f, n in zip(frames, sizes))
    arrays = dict(
        n_atoms=sizes, z=[29, 29, 8, 78, 1], pos_initial=draw.normal(size=(5, 3)) * 3,
        cell=np.stack([9 * np.eye(3)] * 2), fixed=[True, False, False, True, False],
        energy_initial=[-1.0, -2.0], energy_relaxed=[-1.5, -2.5],
        frame_system=np.repeat([0, 1], frames), frame_energy=np.arange(sum(frames)) * -0.5,
        frame_pos=draw.normal(size=(atoms, 3)) * 3, frame_forces=draw.normal(size=(atoms, 3)),
    )  # fmt: skip
    np.savez(path, **{name: value for name, value in (arrays | changes).items() if value is not None})
    return path


def trajectory(path, energies, seed=0):
    """A slab with a fixed lower layer, moving a little from frame to frame."""
    slab = fcc111("Cu", (1, 1, 2), vacuum=5.0)
    slab.set_constraint(FixAtoms([0]))
    with Trajectory(path, "w") as file:
        for number, energy in enumerate(energies):
            slab.positions[1, 2] += 0.01 * (seed + number)
            slab.calc = SinglePointCalculator(slab, energy=energy, forces=np.full((2, 3), float(number)))
            file.write(slab)
    return path


def test_relaxations_of_an_archive(tmp_path):
    path = archive(tmp_path / "r.npz")
    initial = read_molecules(path, relaxations=True, dtype=torch.float64)
    assert initial.names == ("relaxed_energy", "initial_energy") and initial.units == ("eV", "eV")
    assert initial.y.tolist() == [[-1.5, -1.0], [-2.5, -2.0]] and initial.forces is None
    assert np.array_equal(initial.pos, np.load(path)["pos_initial"])
    assert initial[1].fixed.tolist() == [True, False] and initial[1].z.tolist() == [78, 1]
    frames = read_molecules(path, dtype=torch.float64)
    assert frames.names == ("energy",) and frames.n_atoms.tolist() == [3, 3, 2, 2, 2]
    assert np.array_equal(frames.pos, np.load(path)["frame_pos"])
    assert np.array_equal(frames.forces, np.load(path)["frame_forces"])
    assert frames[[1, 4]].fixed.tolist() == [True, False, False, True, False]
    assert frames.pbc.all() and frames.cell.shape == (5, 3, 3)
    assert frames.group.tolist() == [0, 0, 1, 1, 1] and frames.choose(["energy"]).group is frames.group


def test_wrong_relaxations(tmp_path):
    with pytest.raises(ValueError, match="got none called frame_pos"):
        read_molecules(archive(tmp_path / "r.npz", frame_pos=None))
    with pytest.raises(ValueError, match="got none called energy_relaxed"):
        read_molecules(archive(tmp_path / "s.npz", energy_relaxed=None), relaxations=True)
    with pytest.raises(ValueError, match="frame_system: expected relaxations 0 to 1, got 0 to 2"):
        read_molecules(archive(tmp_path / "t.npz", frame_system=[0, 0, 1, 1, 2]))
    np.savez(tmp_path / "p.npz", n_atoms=[1], z=[1], pos=np.zeros((1, 3)))
    with pytest.raises(ValueError, match="data.relaxations: expected an array pos_initial"):
        read_molecules(tmp_path / "p.npz", relaxations=True)
    with pytest.raises(ValueError, match="data.relaxations: expected a source that holds relaxations, got 'qm9'"):
        read_molecules("qm9", relaxations=True)
    with pytest.raises(ValueError, match=r"fixed: expected shape \[6\], got \[2\]"):
        slabs_with_fixed_atoms([True, False])
    with pytest.raises(TypeError, match="fixed: expected bool, got torch.int64"):
        slabs_with_fixed_atoms([0, 0, 0, 1, 1, 1])


def test_trajectories_of_ase(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    trajectory(folder / "a.traj", [-1.0, -1.2, -1.3])
    trajectory(folder / "b.traj", [-2.0, -2.5], seed=1)
    (folder / ".DS_Store").write_bytes(b"no structures")
    initial = read_molecules(folder, relaxations=True)
    assert initial.names == ("relaxed_energy", "initial_energy") and initial.units == ("eV", "eV")
    assert initial.y.tolist() == [[-1.3, -1.0], [-2.5, -2.0]] and initial.forces is None
    assert initial.fixed.tolist() == [True, False] * 2
    assert initial.pbc.tolist() == [[True, True, False]] * 2
    frames = read_molecules(folder)
    assert frames.y[:, 0].tolist() == [-1.0, -1.2, -1.3, -2.0, -2.5]
    assert frames.group.tolist() == [0, 0, 0, 1, 1] and read_molecules(folder / "a.traj").group is None
    # ASE's constraints leave the stored forces alone
    assert frames.forces[:, 0].tolist() == [0, 0, 1, 1, 2, 2, 0, 0, 1, 1]
    assert torch.equal(initial.pos[:2], frames.pos[:2])
    assert from_atoms([fcc111("Cu", (1, 1, 2))]).fixed is None
    ase.io.write(folder / "c.traj", fcc111("Cu", (1, 1, 2), vacuum=5.0))
    with pytest.raises(ValueError, match="c.traj: expected a trajectory with energies"):
        read_molecules(folder, relaxations=True)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / ".hidden").touch()
    with pytest.raises(ValueError, match="expected files that ASE can read, got an empty folder"):
        read_molecules(tmp_path / "none")


def test_the_shipped_slabs():
    slabs = read_molecules("fcc111")
    assert len(slabs) == 882 and slabs.names == ("adsorption_energy",) and slabs.units == ("eV",)
    assert slabs.pbc.all() and set(slabs.z.tolist()) == {1, 6, 7, 8, 9, 16, 17, 35, 29, 45, 46, 47, 77, 78, 79}
    # the first, Pt/C/bridge/0.25, as in the archive
    assert slabs.y[0].item() == pytest.approx(-6.154686, rel=1e-12) and slabs[0].z.tolist() == [78] * 16 + [6]


def test_held_out_elements():
    slabs = read_molecules("fcc111")
    held = hold_out(slabs, ["Pd", "Au"])
    numbers = set(held.test.tolist())
    assert len(numbers) == 127 + 124
    for number in range(len(slabs)):
        assert (number in numbers) == bool(set(slabs[number].z.tolist()) & {46, 79})
    for symbols, message in (
        (["Xx"], "data.held_out: expected symbols of elements, got 'Xx'"),
        (["Fe"], "expected elements of some molecules, got Fe in none"),
        (["Pt", "Ir", "Rh", "Pd", "Au", "Cu", "Ag"], "Ag in all"),
    ):
        with pytest.raises(ValueError, match=message):
            hold_out(slabs, symbols)
    with pytest.raises(ValueError, match="expected a source without test frames of its own"):
        hold_out(read_molecules("ethanol"), ["H"])


def test_shares_of_errors_within_a_limit():
    errors = torch.tensor([[0.01, 5.0], [-0.02, 1.0], [0.021, 0.0], [-1.0, 0.0]])
    total = ErrorSum(["a", "b"], torch.tensor([0.02, 1.0]))
    total.add(errors[:3])
    state = total.state()
    total = ErrorSum(["a", "b"], torch.tensor([0.02, 1.0]))
    total.load(state)
    total.add(errors[3:])
    assert total.means().within == {"a": 0.5, "b": 0.75}
    assert total.means(torch.tensor([10.0, 1.0])).within == {"a": 0.5, "b": 0.75}  # limits are on what is added
    plain = ErrorSum(["a"])
    plain.add(errors[:, :1])
    assert plain.means().within == ErrorSum(["a"]).means().within == {}


def slabs_with_fixed_atoms(fixed):
    draw = torch.Generator().manual_seed(0)
    pos = torch.tensor([[0.0, 0, 0], [0, 0, 1.8], [0.2, 0, 3.2]]).repeat(2, 1) + 0.1 * torch.rand(6, 3, generator=draw)
    return Molecules(
        torch.tensor([3, 3]), torch.tensor([29, 29, 8] * 2), pos, torch.zeros(2, 1).double(), ("energy",), ("eV",),
        forces=torch.randn(6, 3, generator=draw), cell=5 * torch.eye(3).expand(2, 3, 3),
        pbc=torch.tensor([[True, True, False]] * 2), fixed=torch.tensor(fixed),
    )  # fmt: skip


def test_forces_on_fixed_atoms_do_not_count():
    molecules = slabs_with_fixed_atoms([True, False, False, True, True, False])
    free = ~molecules.fixed
    config = tiny_config(data__dtype="float32")
    normalization = fit_normalization(molecules, torch.arange(2))
    assert normalization.scale[0].item() == pytest.approx(
        molecules.forces[free].square().mean().sqrt().item(), rel=1e-6
    )
    potential = Potential(with_outputs(SphereNet(**TINY_MODEL)), normalization, ("energy",), ("eV",), forces=True)
    other = molecules.forces.clone()
    other[molecules.fixed] += 100
    batches = [molecules[[0, 1]], molecules[[0, 1]]]
    batches[1].forces = other
    module = TrainingModule(potential, config, 1)
    losses = [total_loss(config.loss, *module._errors(batch)) for batch in batches]
    assert torch.equal(*losses)
    found = evaluate(potential, molecules, torch.arange(2))
    forces = potential.energy_and_forces(batches[0])[1].detach()
    assert found.mae["forces"] == pytest.approx((forces - molecules.forces)[free].abs().mean().item(), rel=1e-5)


def test_a_batch_in_which_all_atoms_are_fixed_has_no_error_of_forces():
    for kind in ("l1", "mse", "huber", "norm"):
        assert error_loss(kind, torch.zeros(0, 3, requires_grad=True)).item() == 0
    total = ErrorSum(["energy"])
    total.add(torch.ones(2, 1), torch.zeros(0, 3))
    found = total.means()
    assert found.mae["energy"] == found.rmse["energy"] == 1.0
    assert np.isnan(found.mae["forces"]) and np.isnan(found.rmse["forces"])
    batch = Batch(None, None, None, 1, fixed=torch.tensor([True, True]))
    assert batch.of_free_atoms(torch.ones(2, 3)).shape == (0, 3)


def test_forces_on_fixed_atoms_alone_cannot_be_learned():
    molecules = slabs_with_fixed_atoms([True] * 3 + [False] * 3)
    for scale in ("auto", "none"):
        with pytest.raises(ValueError, match="data.forces: expected atoms that are not fixed, got 3 that are"):
            fit_normalization(molecules, torch.tensor([0]), scale=scale)
    assert torch.isfinite(fit_normalization(molecules, torch.tensor([1])).scale).all()


def test_a_run_with_batches_in_which_all_atoms_are_fixed(tmp_path):
    """The errors of forces are unknown then, which is no reason to stop or to keep other weights."""
    fixed = [True] * 3 + [False] * 2
    path = archive(tmp_path / "r.npz", frames=(3, 2), fixed=fixed)
    np.savez(tmp_path / "split.npz", train=[0, 3, 4], val=[1], test=[2])
    overrides = tiny(path, data__split=tmp_path / "split.npz", model__cutoff=6.0)
    config = load_config("oc20:s2ef", [*overrides, "training.batch_size=1"])
    results = train(config, tmp_path / "run")
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.csv") if "val_loss" in row]
    assert rows and all(np.isfinite(row["val_loss"]) and np.isnan(row["val_mae_forces"]) for row in rows)
    assert np.isnan(results["mae"]["forces"]) and np.isfinite(results["mae"]["energy"])
    best = torch.load(tmp_path / "run" / "last.ckpt", weights_only=False)["callbacks"]["RunControl"]["best"]
    assert best == min(row["val_loss"] for row in rows)


def tiny(source, **changes):
    """The shipped config for slabs as a run of seconds."""
    values = {f"model.{name}": value for name, value in TINY_MODEL.items()} | {"data.source": source}
    values |= {"training.max_time": None, "training.max_steps": 3, "training.tensorboard": False}
    values |= {"training.device": "cpu", "training.threads": 1, "training.val_every": 2, "training.log_every": 1}
    return settings(values | {name.replace("__", "."): value for name, value in changes.items()})


def test_training_on_slabs_without_one_metal(tmp_path):
    config = load_config("slabs", tiny("fcc111", data__train=12, data__val=4, data__test=3))
    assert config.data.ewt_threshold == 0.02
    config.data.ewt_threshold = 5.0
    results = train(config, tmp_path / "run")
    assert 0 < results["within"]["adsorption_energy"] <= 1
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    assert all(0 <= row["val_within_adsorption_energy"] <= 1 for row in rows if "val_loss" in row)
    slabs = read_molecules("fcc111")
    with np.load(tmp_path / "run" / "split.npz") as split:
        parts = {part: split[part] for part in ("train", "val", "test")}
    assert all((46 in slabs[int(m)].z) == (part == "test") for part, numbers in parts.items() for m in numbers)
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path / "run" / "best.ckpt")])
    share = 100 * results["within"]["adsorption_energy"]
    assert result.exit_code == 0 and "not in the training set: Pd" in result.stdout
    assert f"adsorption_energy: {share:.2f} % of the errors are within 5 eV" in result.stdout
    other = ["--data", "fcc111"]  # data that the run did not ask for
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path / "run" / "best.ckpt"), *other])
    assert result.exit_code == 2 and "expected elements of the training set" in result.stderr


@pytest.mark.parametrize("relaxations", [True, False])
def test_training_on_relaxations(tmp_path, relaxations):
    target = "relaxed_energy" if relaxations else "energy"
    changes = dict(model__cutoff=6.0, data__relaxations=relaxations, data__test=1 if relaxations else 3)
    overrides = tiny(archive(tmp_path / "r.npz"), **changes)
    config = load_config("oc20:is2re" if relaxations else "oc20:s2ef", [*overrides, "training.batch_size=2"])
    results = train(config, tmp_path / "run")
    assert set(results["mae"]) == ({target} if relaxations else {"energy", "forces"})
    assert set(results["within"]) == {target}
    with np.load(tmp_path / "run" / "split.npz") as split:  # one relaxation is trained on, the other tested
        assert sorted(len(split[part]) for part in ("train", "test")) == ([1, 1] if relaxations else [2, 3])
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path / "run" / "best.ckpt"), "--part", "all"])
    assert result.exit_code == 0 and result.stdout.startswith("2 mol" if relaxations else "5 mol")


def documented(*places):
    """The training commands in texts: config, overrides."""
    for place in places:
        for name, options in re.findall(r"spherenet-fast train ((?:slabs|oc20)\S*?)((?: --set [^\s`]+)*)[\s`]", place):
            yield name, options.split(" --set ")[1:]


def test_documented_commands_resolve():
    """No command in the documentation or the configs asks for a key or a variant that is not there."""
    page = (Path(__file__).parents[2] / "docs/crystals_and_catalysts.md").read_text()
    configs = [(CONFIGS_FOLDER / f"{name}.yaml").read_text() for name in ("slabs", "oc20")]
    found = list(documented(page, *configs))
    assert len(found) >= 10 and {name for name, _ in found} == {"slabs", "oc20:is2re", "oc20:s2ef"}
    for name, options in found:
        data = load_config(name, options).data
        if name != "slabs":
            assert not data.held_out and data.test == 0 and data.source != "fcc111"
            assert data.targets == ["relaxed_energy" if name == "oc20:is2re" else "energy"]
    with pytest.raises(ValueError, match="config: expected one of oc20:is2re, oc20:s2ef, got oc20"):
        load_config("oc20", ["data.source=x"])
    with pytest.raises(ValueError, match="'data.source': expected a sample's name or a path, got nothing"):
        load_config("oc20:is2re")


def test_a_folder_of_trajectories_trains_as_documented(tmp_path):
    folder = tmp_path / "trajectories"
    folder.mkdir()
    for seed in range(3):
        trajectory(folder / f"{seed}.traj", [-1.0, -1.2 - seed], seed=seed)
    for name, changes, structures in (("is2re", {"data__relaxations": True}, 3), ("s2ef", {}, 6)):
        results = train(load_config(f"oc20:{name}", tiny(folder, **changes)), tmp_path / name)
        assert results["mae"] == {} and results["step"] == 3
        with np.load(tmp_path / name / "split.npz") as split:
            assert [len(split[part]) for part in ("train", "val", "test")] == [structures, 0, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("data.ewt_threshold=0", "config key 'data.ewt_threshold': expected more than 0, got 0"),
        ("data.split=s.npz", r"config key 'data.held_out': expected none where data.split says all, got \['Pd'\]"),
    ],
)
def test_wrong_configs(changes, message):
    with pytest.raises(ValueError, match=message):
        load_config("slabs", [changes])
