"""Weights that come with the package: their recorded errors, the places that take a name, damage, and the hub."""

import hashlib
import re
import shutil
import sys
from types import SimpleNamespace

import ase.io
import pytest
import torch
from ase.build import molecule
from commands import call
from training_runs import tiny_config

from bench.training import pretrained as script
from spherenet_fast import SchNet, SphereNet, pretrained
from spherenet_fast.calculators import Committee, SphereNetCalculator
from spherenet_fast.training import Potential, train
from spherenet_fast.training.checkpoint import read_checkpoint
from spherenet_fast.training.config.paths import absolute_paths

NAMES = pretrained.names()
FACTS = {
    "model", "elements", "units", "data", "license of the data", "split", "seed", "budget", "hardware", "limits",
    "errors", "check", "sha256",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_recorded_errors_are_reproduced(name):
    check = pretrained.card(name)["check"]
    potential = Potential.load(name)
    found = script.check_predictions(potential, check["data"], check["every"])
    assert 50 <= len(found.indices) <= 100
    errors = script.table(potential, found.errors(potential))
    assert errors.keys() == check["errors"].keys()
    for target, recorded in check["errors"].items():
        assert errors[target].pop("unit") == recorded.pop("unit")
        # the card has five digits, of which the last changes with the order of float32 sums, another on other CPUs
        assert errors[target] == pytest.approx(recorded, rel=1e-3)


def test_every_name_has_a_card_and_all_are_small():
    files = [path for path in pretrained._folder().iterdir() if path.suffix in (".ckpt", ".yaml")]
    assert sorted(path.name for path in files) == sorted(f"{name}{end}" for name in NAMES for end in (".ckpt", ".yaml"))
    assert {"md17-ethanol", "md17-toluene", "qm9-gap"} <= set(NAMES)
    assert sum(path.stat().st_size for path in files) < 10e6
    for name in NAMES:
        facts = pretrained.card(name)
        assert FACTS <= facts.keys() and None not in facts.values()
        assert "/" not in read_checkpoint(name)["config"]["data"]["source"]  # no folder of whoever trained it


def test_a_name_is_the_whole_potential():
    potential = SphereNet.from_pretrained("md17-ethanol")
    assert isinstance(potential.model, SphereNet) and potential.units == ("kcal/mol",)
    assert {weight.dtype for weight in potential.model.parameters()} == {torch.float32}
    with pytest.raises(ValueError, match="^md17-ethanol: expected a SchNet, got a SphereNet$"):
        SchNet.from_pretrained("md17-ethanol")


def test_commands_and_calculators_take_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ethanol = molecule("CH3CH2OH")
    ase.io.write("ethanol.xyz", ethanol)
    code, _, error = call("predict", "md17-ethanol", "ethanol.xyz", "-o", "out.extxyz")
    assert (code, error) == (0, "")
    energy = ase.io.read("out.extxyz").get_potential_energy()
    assert call("evaluate", "md17-ethanol", "--data", "out.extxyz")[0] == 0
    (tmp_path / "md17-ethanol").mkdir()  # comes after the name
    for calculator in (SphereNetCalculator("md17-ethanol"), Committee("md17-ethanol")):
        ethanol.calc = calculator
        assert ethanol.get_potential_energy() == pytest.approx(energy, abs=1e-6)  # the file's digits
    assert absolute_paths(tiny_config(training__init_from="md17-ethanol")).training.init_from == "md17-ethanol"
    with pytest.raises(ValueError, match="expected the file of a checkpoint, got a folder"):
        Potential.load(tmp_path / "md17-ethanol")


def test_a_wrong_name_is_answered_with_the_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known = ", ".join(NAMES)
    like = "; did you mean md17-ethanol[?]"
    with pytest.raises(ValueError, match=f"^expected one of {known}, got 'md17-etanol'{like}$"):
        pretrained.card("md17-etanol")
    ase.io.write("water.xyz", molecule("H2O"))
    code, _, error = call("predict", "md17-etanol", "water.xyz", "-o", "out.extxyz")
    expected = f"error: md17-etanol: no such checkpoint, nor pretrained weights [(]{known}[)] of that name{like}\n"
    assert code == 2 and re.fullmatch(expected, error)
    with pytest.raises(FileNotFoundError, match="^best.ckpt: no such checkpoint$"):
        Potential.load("best.ckpt")
    with pytest.raises(FileNotFoundError, match=f"no such checkpoint, nor .* [(]{known}[)] of that name{like}$"):
        Potential.load("md17-ethanol.ckpt")
    with pytest.raises(FileNotFoundError, match="no such checkpoint, nor of the form hf://OWNER/REPOSITORY/FILE$"):
        Potential.load("https://huggingface.co/a/b/c.ckpt")


def test_a_damaged_file_is_refused(tmp_path, monkeypatch):
    folder = pretrained._folder()
    for end in (".ckpt", ".yaml"):
        shutil.copy(folder / f"md17-ethanol{end}", tmp_path)
    monkeypatch.setattr(pretrained, "_folder", lambda: tmp_path)
    path = tmp_path / "md17-ethanol.ckpt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    sha256 = pretrained.card("md17-ethanol")["sha256"]
    found = hashlib.sha256(content).hexdigest()
    with pytest.raises(ValueError, match=f"^md17-ethanol: expected a file of SHA-256 {sha256}, got {found}: .*again$"):
        Potential.load("md17-ethanol")
    path.unlink()
    with pytest.raises(ValueError, match="^md17-ethanol: expected the file .*md17-ethanol.ckpt, got none; install"):
        Potential.load("md17-ethanol")


@pytest.fixture
def hub(monkeypatch):
    """The calls of a huggingface_hub whose every file is that of ethanol."""
    calls = []

    def hf_hub_download(repository, name, revision=None):
        calls.append((repository, name, revision))
        if name == "none.ckpt":
            raise RuntimeError("404 Client Error.\n\nEntry Not Found")
        return str(pretrained.checkpoint_file("md17-ethanol"))

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=hf_hub_download))
    return calls


def test_checkpoints_of_a_hub(hub, tmp_path):
    potential = SphereNet.from_pretrained("hf://owner/models/ethanol/best.ckpt")
    assert potential.state()["digest"] == Potential.load("md17-ethanol").state()["digest"]
    assert hub.pop() == ("owner/models", "ethanol/best.ckpt", None)
    ase.io.write(tmp_path / "ethanol.xyz", molecule("CH3CH2OH"))
    files = tmp_path / "ethanol.xyz", "-o", tmp_path / "out.extxyz"
    assert call("predict", "hf://owner/models@v1/best.ckpt", *files)[0] == 0
    assert hub.pop() == ("owner/models", "best.ckpt", "v1")
    config = tiny_config(training__init_from="hf://owner/models/best.ckpt")
    assert absolute_paths(config).training.init_from == "hf://owner/models/best.ckpt"


def test_what_a_hub_does_not_give_is_one_line(hub, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="^checkpoint: expected hf://OWNER/REPOSITORY/FILE, got 'hf://owner/models'$"):
        Potential.load("hf://owner/models")
    message = "^hf://owner/models/none.ckpt: cannot be downloaded: RuntimeError: 404 Client Error. Entry Not Found$"
    with pytest.raises(OSError, match=message):
        Potential.load("hf://owner/models/none.ckpt")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # as where it is not installed
    with pytest.raises(ValueError, match="^hf://owner/models: expected huggingface_hub to be installed, got none; "):
        Potential.load("hf://owner/models/best.ckpt")


def test_from_a_run_to_weights_and_card(tmp_path, monkeypatch):
    train(tiny_config(training__max_steps=3), tmp_path / "run")
    monkeypatch.setattr(script, "LARGE", 8)  # the model is tiny, too
    (tmp_path / "out").mkdir()
    script.main([str(tmp_path / "run"), "md17-tiny", "--source", "ethanol", "--check", "ethanol", "--every", "500",
                 "--out", str(tmp_path / "out")])  # fmt: skip
    monkeypatch.setattr(pretrained, "_folder", lambda: tmp_path / "out")
    assert pretrained.names() == ["md17-tiny"] and FACTS <= pretrained.card("md17-tiny").keys()
    stored = torch.load(tmp_path / "out/md17-tiny.ckpt", weights_only=True)["weights"]
    before, after = (read_checkpoint(path)["weights"] for path in (tmp_path / "run/best.ckpt", "md17-tiny"))
    large = [name for name, weight in before.items() if weight.dim() > 1 and weight.numel() >= 8]
    assert len(large) > 10
    assert {name for name, weight in stored.items() if weight.dtype == torch.float16} == set(large)
    for name, weight in before.items():
        # half of the last of 9 bits; below 6e-5 float16 has a fixed step, of 6e-8
        bound = 2.0**-9 * weight.abs() + 6e-8 if name in large else torch.zeros_like(weight)
        assert after[name].dtype == torch.float32 and ((after[name] - weight).abs() <= bound).all()
