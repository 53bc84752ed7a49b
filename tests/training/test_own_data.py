"""Data of one's own: the config that suits it, as `train` takes it and as `init` writes it; the options explained."""

import re
from typing import get_type_hints

import ase.io
import numpy as np
import pytest
import yaml
from commands import call, overrides, waters

from spherenet_fast.models import MODELS
from spherenet_fast.training import Config, load_config
from spherenet_fast.training.config.files import is_data
from spherenet_fast.training.config.own_data import config_of_data
from spherenet_fast.training.config.reference import plain_text, section_keys


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def derived(name, *changes):
    return config_of_data(name, list(changes)).config


def test_energies_and_forces_are_found_with_their_unit():
    ase.io.write("w.extxyz", waters(40))
    config, text, _ = config_of_data("w.extxyz")
    data = config.data
    assert (data.targets, data.forces, data.keys, data.units) == (["energy"], True, {}, {"energy": "eV"})
    assert (data.train, data.val, data.test) == (30, 4, 6)
    assert config.training.batch_size == 16 and config.training.max_time == 12  # 16 waters: 48 of at most 80 atoms
    assert "40 structures of 3 atoms (H O)" in text and "energy in eV, forces" in text and "12 minutes" in text


@pytest.mark.parametrize("suffix", ["traj", "db"])
def test_whatever_ase_reads_is_data(suffix):
    ase.io.write(f"w.{suffix}", waters(3))
    assert is_data(f"w.{suffix}") and derived(f"w.{suffix}").data.forces


def test_an_archive_says_its_unit_or_none():
    arrays = dict(z=[8, 1, 1], pos=np.random.default_rng(0).normal(size=(12, 3, 3)), energy=np.arange(12.0))
    np.savez("a.npz", **arrays, energy_unit="kcal/mol")
    np.savez("b.npz", **arrays)
    assert derived("a.npz").data.units == {"energy": "kcal/mol"} and not derived("a.npz").data.forces
    config, text, _ = config_of_data("b.npz")
    assert config.data.units == {} and "energy in an unknown unit (data.file_units.energy says it)" in text
    assert derived("b.npz", "data.file_units.energy=Hartree").data.units == {"energy": "Hartree"}


def test_labels_with_other_names_are_found():
    ase.io.write("w.extxyz", waters(8, "dft_energy", "dft_forces"))
    data = derived("w.extxyz", "data.file_units.energy=Hartree").data
    assert data.keys == {"energy": "dft_energy", "forces": "dft_forces"}
    assert data.forces and data.units == {"energy": "Hartree"}


def test_forces_of_another_energy_are_not_taken():
    structures = waters(8, "dft_energy", "dft_forces")
    for atoms in structures:
        atoms.arrays["xtb_forces"] = 2 * atoms.arrays["dft_forces"]
        atoms.info["e0"] = 1.0
    ase.io.write("w.extxyz", structures)
    assert derived("w.extxyz").data.keys == {"energy": "dft_energy", "forces": "dft_forces"}
    with pytest.raises(ValueError, match="data.keys.forces: expected data with 'forces', got vectors on atoms: dft_f"):
        derived("w.extxyz", "data.keys.energy=e0", "data.targets=[energy]")


@pytest.mark.parametrize(
    ("energy", "more", "targets"), [("gap", {}, ["gap"]), ("energy", {"gap": 1.0}, ["energy"])], ids=["gap", "energy"]
)
def test_a_lonely_number_is_the_target(energy, more, targets):
    structures = waters(8, energy, "velocities")
    for atoms in structures:
        atoms.info.update(more)
    ase.io.write("w.extxyz", structures)
    config = derived("w.extxyz")
    assert config.data.targets == targets and not config.data.forces
    assert config.training.batch_size == 32  # energies alone: many molecules a step


def test_an_adsorption_energy_is_no_total_energy():
    """Which would be learned relative to energies of the elements."""
    data = derived("fcc111").data
    assert (data.targets, data.keys, data.units) == (["adsorption_energy"], {}, {"adsorption_energy": "eV"})


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({}, "w.extxyz: expected structures with an energy or another label, got none"),
        ({"gap": 1.0, "homo": 2.0}, "data.targets: expected one that --set data.targets=.* of gap, homo; got none"),
        ({"a_energy": 1.0, "b_energy": 2.0}, "or --keys energy=NAME where it is the energy, of a_energy, b_energy"),
    ],
)
def test_what_cannot_be_decided_is_asked(labels, message):
    structures = waters(8)
    for atoms in structures:
        atoms.calc = None
        atoms.info.update(labels)
    ase.io.write("w.extxyz", structures)
    code, _, error = call("init", "w.extxyz")
    assert code == 2 and error.count("\n") == 1 and re.search(message, error)


def test_what_is_stated_stays():
    ase.io.write("w.extxyz", waters(40))
    config = derived("w.extxyz", "data.train=36", "data.forces=false", "training.max_steps=5", "model.name=SchNet")
    assert (config.data.train, config.data.val, config.data.test) == (36, 4, 0)
    assert not config.data.forces and config.model.name == "SchNet"
    assert config.training.max_steps == 5 and config.training.max_time is None  # so that the run can be repeated
    split = derived("w.extxyz", "data.split=s.npz").data
    assert (split.train, split.val, split.test, split.split) == (None, 0, None, "s.npz")
    assert derived("w.extxyz", "data.test=1").data.train == 35


@pytest.mark.parametrize(
    ("changes", "torsion", "augmented"),
    [([], "smooth_even", False), (["model.torsion=smooth"], "smooth", True), (["model.torsion=null"], None, False)],
)
def test_reflections_are_shown_to_models_that_see_them(changes, torsion, augmented):
    ase.io.write("w.extxyz", waters(8))
    config = derived("w.extxyz", *changes)
    assert config.model.torsion == torsion and config.training.augment_reflections == augmented
    assert not derived("w.extxyz", "model.name=SchNet").training.augment_reflections


def test_the_structures_of_a_file_stay_together():
    for number, count in enumerate((3, 5, 2, 4, 3, 6)):
        ase.io.write(f"{number}.extxyz", waters(count, seed=number))
    config, text, _ = config_of_data(".")
    assert (config.data.train, config.data.val, config.data.test) == (None, 6, 6) and "no test" not in text
    ase.io.write("0.extxyz", waters(40))
    config, text, _ = config_of_data(".")
    assert (config.data.val, config.data.test) == (0, 0) and "no test: too few files" in text


def test_the_budget_grows_with_the_data(monkeypatch):
    from spherenet_fast.training.config import own_data

    ase.io.write("w.extxyz", waters(40))
    monkeypatch.setattr(own_data, "MINUTES", 1000.0)
    assert derived("w.extxyz").training.max_time == 1000 and derived("w.extxyz", "data.val=0").data.train == 34
    monkeypatch.setattr(own_data, "MOST_MINUTES", 20)
    assert derived("w.extxyz").training.max_time == 20


# The file


def test_init_writes_what_train_takes(capsys):
    ase.io.write("w.extxyz", waters(40, "dft_energy", "dft_forces"))
    code, output, _ = call("init", "w.extxyz", "--set", "model.num_layers=2")
    assert code == 0 and output.endswith("config in w.yaml\n")
    config = load_config("w.yaml")
    assert config == derived("w.extxyz", "model.num_layers=2")
    text = open("w.yaml").read()
    assert text.startswith("# w.extxyz: 40 structures of 3 atoms") and "spherenet-fast train w.yaml" in text
    assert max(map(len, text.splitlines())) <= 120
    tiny = overrides(data__train=8, data__val=2, data__test=3, training__max_steps=2)
    outputs = [call("train", name, "--out", out, *tiny) for name, out in (("w.yaml", "a"), ("w.extxyz", "b"))]
    assert [code for code, _, _ in outputs] == [0, 0], outputs
    assert outputs[1][1].startswith("w.extxyz: 40 structures") and outputs[0][1].endswith(
        "learn much: give it more steps\n"
    )
    of_file, of_data = (yaml.safe_load(open(f"{out}/config.yaml")) for out in ("a", "b"))
    assert of_data.pop("training") | {"max_time": None} == of_file.pop("training") and of_file == of_data
    assert call("train", "w.extxyz", "--out", "b", "--resume", *tiny)[0] == 0


@pytest.mark.parametrize("model", MODELS)
def test_every_option_in_the_file_has_its_default_beside_it(model):
    ase.io.write("w.extxyz", waters(8))
    assert call("init", "w.extxyz", "-o", "c.yml", "--set", f"model.name={model}")[0] == 0
    section, found = None, {}
    for line in open("c.yml").read().splitlines():
        section = line[:-1] if re.fullmatch(r"\w+:", line) else section
        if key := re.match(r"  (\w+): .*?  # (.*)", line):
            found[f"{section}.{key[1]}"] = key[2]
    values = {f"{name}.{key}" for name, section in vars(load_config("c.yml")).items() for key in vars(section)}
    assert found.keys() == values
    assert all("default" in text or "required" in text for key, text in found.items() if key != "model.name")
    assert found["training.max_time"] == "float or null, minutes; above 0, at most 1e+07; default null"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ethanol"], "DATA: expected a file or folder of structures with labels, got 'ethanol'"),
        (["nothing.xyz"], "DATA: expected a file or folder of structures with labels, got 'nothing.xyz'"),
        (["w.extxyz", "-o", "c.txt"], "--out: expected a name that ends in .yaml or .yml, got 'c.txt'"),
        (["w.extxyz", "-o", "there.yaml"], "--out: there.yaml is there already; --overwrite replaces it"),
        (["w.extxyz", "--set", "training.batch=3"], "config key 'training.batch': expected one of "),
        (["there.yaml"], "DATA: expected a file or folder of structures with labels, got 'there.yaml'"),
    ],
)
def test_wrong_input_is_one_line_and_writes_nothing(folder, arguments, message):
    ase.io.write("w.extxyz", waters(8))
    (folder / "there.yaml").write_text("")
    code, _, error = call("init", *arguments)
    assert code == 2 and error.startswith(f"error: {message}") and error.count("\n") == 1
    assert sorted(path.name for path in folder.iterdir()) == ["there.yaml", "w.extxyz"]


# The reference


def test_options_prints_every_key_with_its_meaning():
    code, output, _ = call("options")
    assert code == 0
    for name, section in get_type_hints(Config).items():
        for key in section_keys(name, section) if name != "model" else ():
            assert f"  {name}.{key.name}: {key.facts}\n" in output
            assert " ".join(key.note.replace("`", "").split()) in " ".join(output.split())
    assert all(f"model (model.name: {model})" in output for model in MODELS)


def test_options_of_one_section_or_model():
    assert {line.split(".")[0].strip() for line in plain_text("loss").splitlines() if line.startswith("  l")} == {
        "loss"
    }
    assert "PhysNet" in plain_text("model:PhysNet") and "SphereNet)" not in plain_text("model:PhysNet")
    assert plain_text("data.keys").count(": mapping") == 1
    code, _, error = call("options", "colors")
    assert code == 2 and "NAME: expected the beginning of a key, as data, model," in error and "got 'colors'" in error
