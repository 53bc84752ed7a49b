"""`spherenet-fast export`: what it refuses before it works."""

import sys

import pytest
from commands import call
from small_models import small_model

from spherenet_fast.training import Potential


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "tiny.ckpt"
    Potential.wrap(small_model("SphereNet", kernels=False)).save(path)
    return path


def refused(*arguments):
    status, out, err = call("export", *arguments)
    assert (status, out) == (2, "")
    return err


def test_files(checkpoint, tmp_path):
    there = tmp_path / "there.pt2"
    there.write_text("kept")
    expected = f"error: --out: {there} is there already; --overwrite replaces it\n"
    assert refused(checkpoint, "--to", "pt2", "-o", there) == expected and there.read_text() == "kept"
    assert "no such checkpoint" in refused(tmp_path / "nothing.ckpt", "--to", "pt2", "-o", tmp_path / "a.pt2")


def test_a_model_without_kernels(checkpoint, tmp_path):
    """Nothing is written, and what was there stays."""
    there = tmp_path / "there.pt2"
    there.write_text("kept")
    expected = "error: model: expected kernels=True, to be exported, got False\n"
    assert refused(checkpoint, "--to", "pt2", "-o", there, "--overwrite") == expected
    assert there.read_text() == "kept"


def test_options(checkpoint, tmp_path):
    out = "-o", tmp_path / "a.pt2"
    assert refused(checkpoint, "--to", "onnx", *out) == "error: --to: expected pt2 or metatomic, got 'onnx'\n"
    arguments = checkpoint, "--to", "pt2", *out
    assert "--extensions: expected it with --to metatomic alone" in refused(*arguments, "--extensions", tmp_path)
    assert "--device: expected a device that PyTorch can compute on here" in refused(*arguments, "--device", "nowhere")
    assert "--dtype: expected" in refused(*arguments, "--dtype", "float16")


def test_without_metatomic(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "metatomic", None)
    monkeypatch.setitem(sys.modules, "metatensor", None)
    monkeypatch.delitem(sys.modules, "spherenet_fast.export.metatomic", raising=False)
    expected = "error: --to metatomic: expected the package metatomic-torch (pip install 'spherenet_fast[engines]')"
    assert refused(checkpoint, "--to", "metatomic", "-o", tmp_path / "a.pt").startswith(expected)
