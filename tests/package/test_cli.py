"""The command line, end to end."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import ase.io
import numpy as np
import pytest
import torch
import typer
from ase.build import molecule
from commands import call, overrides

from spherenet_fast.cli._common import errors_in_one_line
from spherenet_fast.data import QM9_TARGETS, conversion
from spherenet_fast.training import Potential, load_config
from spherenet_fast.training.config.files import config_from_dict, config_to_dict, run_name, variants


@pytest.fixture(scope="module")
def ethanol_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "ethanol"
    code, output, _ = call("train", "ethanol", "--out", out, *overrides())
    assert code == 0 and "test set, 4 molecules" in output
    *_, where, last = output.splitlines()
    assert where == f"results in {out}" and last.startswith("warning: training ended after 12 steps, too few to learn")
    return out


@pytest.fixture(scope="module")
def qm9_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "qm9"
    code, output, _ = call("train", "qm9", "--out", out, *overrides(data__targets="[homo,mu]", training__max_steps=3))
    assert code == 0
    return out


def test_evaluate_repeats_the_table_of_the_training(ethanol_run):
    code, output, _ = call("evaluate", ethanol_run / "best.ckpt")
    assert code == 0
    lines = output.splitlines()
    assert lines[0] == "4 molecules" and lines[1].split() == ["target", "MAE", "RMSE", "unit"]
    trained = json.loads((ethanol_run / "results.json").read_text())["mae"]
    table = {words[0]: words[1:] for words in map(str.split, lines[2:]) if len(words) == 4}
    assert table["energy"][2] == "kcal/mol" and table["forces"][2] == "kcal/mol/Ang"
    # five digits are shown, of sums in another order
    assert float(table["energy"][0]) == pytest.approx(trained["energy"], rel=2e-5)
    assert float(table["forces"][0]) == pytest.approx(trained["forces"], rel=2e-5)
    assert call("evaluate", ethanol_run / "last.ckpt", "--part", "val")[1].startswith("3 molecules")


def test_evaluate_on_other_data_and_splits(ethanol_run, tmp_path):
    draw = np.random.default_rng(0)
    np.savez(
        tmp_path / "f.npz", z=[8, 1, 1], pos=draw.normal(size=(3, 3, 3)), energy=draw.normal(size=3),
        forces=draw.normal(size=(3, 3, 3)), energy_unit="eV",
    )  # fmt: skip
    code, output, _ = call("evaluate", ethanol_run / "best.ckpt", "--data", tmp_path / "f.npz")
    assert code == 0 and output.startswith("3 molecules")
    np.savez(tmp_path / "s.npz", train=[0, 2], val=[1])
    other = ["--data", tmp_path / "f.npz", "--split", tmp_path / "s.npz"]
    code, output, _ = call("evaluate", ethanol_run / "best.ckpt", *other, "--part", "train")
    assert code == 0 and output.startswith("2 molecules")
    code, _, error = call("evaluate", ethanol_run / "best.ckpt", "--split", tmp_path / "s.npz")
    assert code == 2 and "error: --part: expected molecules in the test set, got none" in error


def test_evaluate_sums_up_several_targets(qm9_run):
    code, output, _ = call("evaluate", qm9_run / "best.ckpt")
    assert code == 0 and "std. MAE" in output and "logMAE" in output
    assert [line.split()[-1] for line in output.splitlines()[2:5]] == ["meV", "kcal/mol", "D"]


def test_predict_writes_energies_and_forces_in_electronvolt(ethanol_run, tmp_path):
    structures = [molecule("CH3CH2OH"), molecule("H2O"), molecule("CH4")]
    structures[1].set_cell([5, 5, 5])
    structures[1].pbc = True
    ase.io.write(tmp_path / "in.extxyz", structures)
    code, output, _ = call(
        "predict", ethanol_run / "best.ckpt", tmp_path / "in.extxyz", "-o", tmp_path / "out.extxyz", "--batch-size", 2
    )
    assert code == 0 and "3 structures in" in output
    predicted = ase.io.read(tmp_path / "out.extxyz", ":")
    assert [atoms.get_chemical_formula() for atoms in predicted] == ["C2H6O", "H2O", "CH4"]
    assert predicted[1].pbc.all()
    potential = Potential.load(ethanol_run / "best.ckpt")
    factor = conversion("kcal/mol", "eV")
    for before, after in zip(ase.io.read(tmp_path / "in.extxyz", ":"), predicted, strict=True):
        data = load_structure(before)
        energy, forces = potential.energy_and_forces(data)
        # float32 sums over a batch of two and of one differ in their last digits; the file keeps eight decimals.
        assert after.get_potential_energy() == pytest.approx(energy.item() * factor, rel=1e-6)
        assert after.get_forces() == pytest.approx(forces.numpy() * factor, rel=1e-3, abs=1e-4)
    assert sorted(os.listdir(tmp_path)) == ["in.extxyz", "out.extxyz"]


def test_an_output_is_replaced_when_asked_to(ethanol_run, tmp_path):
    ase.io.write(tmp_path / "in.xyz", molecule("H2O"))
    for command, given, name in (("predict", ["RUN", "in.xyz"], "o.xyz"), ("geometry", ["in.xyz"], "o.png")):
        given = [ethanol_run / "best.ckpt" if part == "RUN" else tmp_path / part for part in given]
        (tmp_path / name).write_text("before")
        assert call(command, *given, "-o", tmp_path / name)[0] == 2
        assert (tmp_path / name).read_text() == "before"
        assert call(command, *given, "-o", tmp_path / name, "--overwrite")[0] == 0
        assert (tmp_path / name).stat().st_size > 6


def load_structure(atoms):
    from spherenet_fast.data import from_atoms

    return from_atoms([atoms])[0]


def test_predict_without_forces_and_of_other_targets(ethanol_run, qm9_run, tmp_path):
    ase.io.write(tmp_path / "in.xyz", molecule("H2O"))
    assert (
        call("predict", ethanol_run / "best.ckpt", tmp_path / "in.xyz", "-o", tmp_path / "a.xyz", "--no-forces")[0] == 0
    )
    assert set(ase.io.read(tmp_path / "a.xyz", format="extxyz").calc.results) == {"energy", "energies"}
    assert call("predict", qm9_run / "best.ckpt", tmp_path / "in.xyz", "-o", tmp_path / "b.xyz")[0] == 0
    atoms = ase.io.read(tmp_path / "b.xyz", format="extxyz")
    assert set(atoms.info) >= {"homo", "mu"} and atoms.calc is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nothing.yaml"], "expected a file or one of ethanol, qm9, .*; there is no 'nothing.yaml'"),
        (["train", "paper_md17"], "expected one of paper_md17:aspirin, .* got paper_md17$"),
        (["train", "paper_md17:water"], "expected one of paper_md17:aspirin, .* got paper_md17:water$"),
        (["train", "ethanol:slow"], "expected .*ethanol.yaml alone, as it has no variants, got ':slow'"),
        (["train", "ethanol", "--set", "training.epochs=3"], "'training.epochs': expected one of batch_size, "),
        (
            ["train", "ethanol", "--set", "speed=fast"],
            "'speed': expected one of data, model, loss, optimizer, training",
        ),
        (["train", "ethanol", "--set", "training.lr"], "--set: expected key=value, got 'training.lr'"),
        (["train", "ethanol", "--set", "model.basis=[a"], "--set: expected key=value"),
        (["train", "qm9", "--set", "data.targets=[U7]"], "targets: expected some of mu, alpha, homo, .* got 'U7'"),
        (["train", "ethanol", "--resume"], "runs/ethanol/last.ckpt: no such checkpoint"),
        (["evaluate", "nothing.ckpt"], "nothing.ckpt: no such checkpoint"),
        (["evaluate", "RUN/config.yaml"], "config.yaml: expected a checkpoint of spherenet_fast"),
        (["evaluate", "RUN/best.ckpt", "--part", "most"], "--part: expected one of test, val, train, all, got 'most'"),
        (["evaluate", "RUN/best.ckpt", "--data", "nothing.npz"], "there is no 'nothing.npz'"),
        (["evaluate", "RUN/best.ckpt", "--device", "abacus"], "--device: expected a device .* got 'abacus'"),
        (["predict", "RUN/best.ckpt", "nothing.xyz", "-o", "o.xyz"], "nothing.xyz: no such file"),
        (["predict", "RUN/best.ckpt", "RUN/config.yaml", "-o", "o.xyz"], "expected structures that ASE can read"),
        (
            ["predict", "RUN/best.ckpt", "silane.xyz", "-o", "o.xyz"],
            "structure 0: z: expected elements of the training set",
        ),
        (["predict", "RUN/best.ckpt", "silane.xyz", "-o", "away/o.xyz"], "there is no folder away"),
        (["predict", "RUN/best.ckpt", "silane.xyz", "-o", "silane.xyz"], "silane.xyz is there already; --overwrite"),
        (["predict", "RUN/best.ckpt", "silane.xyz", "-o", "RUN"], "cannot be written: expected a file, got a folder"),
        (["predict", "RUN/best.ckpt", "silane.xyz", "-o", "n" * 300], "nnn: cannot be written: File name too long"),
        (["predict", "RUN/best.ckpt", "n" * 300, "-o", "o.xyz"], "nnn: File name too long"),
        (["filters", "RUN/best.ckpt", "-o", "n" * 300 + ".png"], "nnn.png: cannot be written: File name too long"),
        (["geometry", "silane.xyz", "-o", "RUN/learning_curve.png"], "learning_curve.png is there already"),
        (["train", "ethanol", "--out", "n" * 300], "nnn: File name too long"),
        (["train", "ethanol", "--out", "silane.xyz/run", *overrides()], "silane.xyz/run: Not a directory"),
        (["evaluate", "RUN"], "expected the file of a checkpoint, got a folder; it has a best.ckpt"),
        (["evaluate", "RUN/best.ckpt", "--data", "silane.xyz"], "expected data with a label 'energy', got data"),
        (["evaluate", "n" * 300], "nnn: File name too long"),
        (["evaluate", "RUN/best.ckpt", "--device", "meta"], "--device: expected a device .* got 'meta'"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(ethanol_run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    ase.io.write("silane.xyz", molecule("SiH4"))
    code, _, error = call(*(argument.replace("RUN", str(ethanol_run)) for argument in arguments))
    assert code == 2
    assert error.startswith("error: ") and error.count("\n") == 1
    assert re.search(message, error)
    assert os.listdir(tmp_path) == ["silane.xyz"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "data: {source: qm9}\ntraining: {batch_size: many, max_steps: 1}",
            "'training.batch_size': expected int, got 'many'",
        ),
        (
            "data: {source: qm9}\ntraining: {batch_size: 0, max_steps: 1}",
            "'training.batch_size': expected at least 1, got 0",
        ),
        (
            "data: {source: qm9}\ntraining: {device: tpu}",
            "'training.device': expected one of auto, cpu, gpu, got 'tpu'",
        ),
        ("data: {source: qm9}\noptimizer: {lr: .inf}", "'optimizer.lr': expected a finite number, got inf"),
        ("data: {source: qm9}\noptimizer: {lr: 0}", "'optimizer.lr': expected more than 0, got 0"),
        ("data: {source: qm9}\noptimizer: {ema_decay: 2}", "'optimizer.ema_decay': expected at most 1, got 2"),
        ("data: {source: qm9, targets: mu}", r"'data.targets': expected list\[str\], got 'mu'"),
        ("data: {source: qm9, targets: []}\ntraining: {max_steps: 1}", "'data.targets': expected at least one name"),
        (
            "data: {source: qm9, targets: [mu], forces: true}\ntraining: {max_steps: 1}",
            r"expected \[energy\] when data.forces",
        ),
        ("data: {source: qm9}", "'training.max_epochs', 'max_steps', 'max_time': expected at least one, got none"),
        ("data: 3", "config section 'data': expected keys and values, got 3"),
        ("model: {cutoff: 5}", "'data.source': expected a sample's name or a path, got nothing"),
        ("- data", "expected sections data, model, .* got a ListConfig"),
        ("data: {source: qm9}\nvariants: [slow]", r"variants: expected names with sections .* got \['slow'\]"),
        ("data: [", "expected a YAML file"),
    ],
)
def test_wrong_configs_name_the_key(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_config(tmp_path / "c.yaml")


@pytest.mark.parametrize("name", ["ethanol", "qm9", "slabs"])
def test_shipped_configs_are_valid_and_survive_a_dictionary(name):
    config = load_config(name, ["training.max_time=20", "data.units={energy: eV}"])
    assert config.training.max_time == 20 and config.data.units == {"energy": "eV"}
    assert config_from_dict(config_to_dict(config)) == config


@pytest.mark.parametrize("name", ["paper_qm9", "paper_md17", "ablation"])
def test_every_variant_of_the_paper_s_experiments_is_valid(name):
    from torch_geometric.datasets import MD17

    known = variants(name)
    configs = [load_config(f"{name}:{variant}") for variant in known]
    assert len(known) == {"paper_qm9": 12, "paper_md17": 8, "ablation": 5}[name]
    assert len({str(config) for config in configs}) == len(configs)  # no two of them the same
    for variant, config in zip(known, configs, strict=True):
        if name == "paper_qm9":
            assert config.data.targets == [variant] and variant in QM9_TARGETS
        if name == "paper_md17":
            molecule = config.data.source.removeprefix("pyg:MD17/")
            assert molecule.replace(" ", "_") == variant and molecule in MD17.file_names


def test_a_variant_trains_in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, output, _ = call("train", "ablation:no_angle", *overrides(training__max_steps=2))
    assert code == 0 and "results in runs/ablation-no_angle" in output
    hparams = Potential.load(tmp_path / "runs/ablation-no_angle/best.ckpt").model.hparams
    assert not hparams["use_angle"] and not hparams["use_torsion"]


def test_a_file_of_one_s_own_may_have_variants(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "data: {source: qm9, targets: [mu]}\ntraining: {max_steps: 1}\nvariants: {a: {}, b: {data: {targets: [gap]}}}"
    )
    assert variants(path) == ["a", "b"] and run_name(f"{path}:b") == "mine-b" and run_name(path) == "mine"
    assert load_config(f"{path}:a").data.targets == ["mu"] and load_config(f"{path}:b").data.targets == ["gap"]
    assert load_config(f"{path}:b", ["data.targets=[U0]"]).data.targets == ["U0"]


def test_ctrl_c_in_a_terminal_saves_and_resume_goes_on(tmp_path):
    command = [sys.executable, "-m", "spherenet_fast.cli", "train", "ethanol", "--out", str(tmp_path / "run")]
    command += overrides(training__max_steps=100000, training__log_every=1)
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)  # not the source folder
    metrics = tmp_path / "run" / "metrics.csv"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text().count("\n") > 3):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "the same command with --resume continues" in error
    step = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["global_step"]
    code, _, _ = call(
        "train", "ethanol", "--out", tmp_path / "run", "--resume", *overrides(training__max_steps=step + 1)
    )
    assert code == 0
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["global_step"] == step + 1


def test_a_gpu_whose_memory_does_not_suffice_is_one_line(capsys):
    with pytest.raises(typer.Exit), errors_in_one_line():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nand more")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: device: expected enough memory on the GPU for a batch; smaller ones")
    assert line.endswith("got CUDA out of memory. Tried to allocate 2.00 GiB.")
    with pytest.raises(RuntimeError, match="^another$"), errors_in_one_line():
        raise RuntimeError("another")
