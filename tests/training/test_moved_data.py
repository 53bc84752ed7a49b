"""A run finds its data from any folder, and where it was moved together with the run."""

import shutil

import ase.io
import numpy as np
import pytest
import yaml
from commands import call, overrides, waters

from spherenet_fast.training import Potential


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with data/f.extxyz, data/split.npz and a run in runs/x that was given relative paths."""
    folder = tmp_path / "project"
    (folder / "data").mkdir(parents=True)
    ase.io.write(folder / "data" / "f.extxyz", waters(8))
    np.savez(folder / "data" / "split.npz", train=[0, 1, 2, 3], val=[4], test=[5, 6])
    monkeypatch.chdir(folder)
    code, _, _ = call("train", "ethanol", "--out", "runs/x", *settings())
    assert code == 0
    return folder


def settings(**changes):
    values = {"data__source": "data/f.extxyz", "data__split": "data/split.npz", "training__max_steps": 2}
    return overrides(**values | changes)


def test_a_run_is_evaluated_from_any_folder(project, tmp_path, monkeypatch):
    here = call("evaluate", "runs/x/best.ckpt")
    monkeypatch.chdir(tmp_path)
    assert call("evaluate", "project/runs/x/best.ckpt") == here and here[1].startswith("2 molecules")
    data = Potential.load("project/runs/x/best.ckpt").config["data"]
    assert data["source"] == str(project / "data" / "f.extxyz") and data["split"] == str(project / "data" / "split.npz")
    assert yaml.safe_load((project / "runs/x/config.yaml").read_text())["data"] == data
    assert call("train", "project/runs/x/config.yaml", "--out", "again", "--set", "training.max_steps=1")[0] == 0


@pytest.mark.parametrize("to", ["elsewhere", "a/b/elsewhere"])
def test_data_moved_with_its_run_is_found(project, tmp_path, to):
    before = call("evaluate", "runs/x/best.ckpt")[1]
    (tmp_path / to).parent.mkdir(parents=True, exist_ok=True)
    shutil.move(project, tmp_path / to)
    code, output, _ = call("evaluate", tmp_path / to / "runs/x/best.ckpt")
    found = tmp_path / to / "data"
    assert code == 0 and output == (
        f"{project}/data/f.extxyz is not there; {found}/f.extxyz is taken\n"
        f"{project}/data/split.npz is not there; {found}/split.npz is taken\n{before}"
    )


def test_data_that_has_grown_is_not_the_data_of_the_run(project, monkeypatch):
    monkeypatch.chdir(project)
    data = next(path for path in project.rglob("*.extxyz"))
    data.write_text(2 * data.read_text())
    for command in (["evaluate", "runs/x/best.ckpt"], ["train", "ethanol", "--out", "runs/x", "--resume", *settings()]):
        code, _, error = call(*command)
        assert code == 2 and "data.source: expected" in error and "split.npz is a split, got" in error


def test_a_moved_run_goes_on(project, tmp_path, monkeypatch):
    shutil.move(project, tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, _, error = call("train", "ethanol", "--out", "runs/x", "--resume", *settings(training__max_steps=3))
    assert code == 0, error
    ase.io.write("other.extxyz", waters(8, seed=1))
    code, _, error = call("train", "ethanol", "--out", "runs/x", "--resume", *settings(data__source="other.extxyz"))
    assert code == 2 and "--resume: expected data.source = " in error


def test_data_that_is_nowhere_is_said(project, tmp_path, monkeypatch):
    (project / "data" / "f.extxyz").unlink()
    (project / "f.extxyz").mkdir()  # of that name, but a folder without structures
    code, _, error = call("evaluate", "runs/x/best.ckpt")
    assert code == 2 and "f.extxyz: expected files that ASE can read, got an empty folder" in error
    (project / "f.extxyz").rmdir()
    code, _, error = call("evaluate", "runs/x/best.ckpt")
    assert code == 2 and f"there is no '{project}/data/f.extxyz'" in error
    # a sample's name is no path, whatever the folders around the run are called
    monkeypatch.chdir(tmp_path)
    assert call("train", "ethanol", "--out", "ethanol/ethanol", *overrides(training__max_steps=1))[0] == 0
    assert call("evaluate", "ethanol/ethanol/best.ckpt")[1].startswith("4 molecules")


def test_data_in_another_order_is_not_the_data_of_the_run(project):
    """Else frames that it was trained on would count as test frames."""
    frames = ase.io.read("data/f.extxyz", ":")
    ase.io.write("data/f.extxyz", frames[::-1])
    code, _, error = call("evaluate", "runs/x/best.ckpt")
    assert code == 2 and "split.npz is a split, got others or other labels" in error
