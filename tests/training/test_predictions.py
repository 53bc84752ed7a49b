"""Names and units of what `predict` writes and `evaluate` compares."""

import ase.io
import pytest
from commands import call, waters
from training_runs import untrained


def test_names_of_predictions_leave_the_structures_alone(tmp_path):
    untrained("float32")[0].save(tmp_path / "p.pt")
    ase.io.write(tmp_path / "f.extxyz", waters(2))
    for name in ("positions", "pos", "Lattice", "numbers"):
        code, _, error = call(
            "predict", tmp_path / "p.pt", tmp_path / "f.extxyz", "-o", tmp_path / "o", "--keys", f"forces={name}"
        )
        assert code == 2 and f"use for itself, got {name.lower()}" in error and not (tmp_path / "o").exists()


def test_a_unit_that_nobody_stated_is_asked_for(tmp_path):
    potential = untrained("float32")[0]
    potential.units = (None,)
    potential.save(tmp_path / "p.pt")
    structures = waters(4)
    ase.io.write(tmp_path / "f.extxyz", structures)
    code, _, error = call("evaluate", tmp_path / "p.pt", "--data", tmp_path / "f.extxyz", "--unit", "furlong")
    assert code == 2 and "unit: expected one of" in error
    predict = ["predict", tmp_path / "p.pt", tmp_path / "f.extxyz", "-o", tmp_path / "o.extxyz"]
    evaluate = ["evaluate", tmp_path / "p.pt", "--data", tmp_path / "f.extxyz"]
    for command in (predict, evaluate):
        code, _, error = call(*command)
        assert code == 2 and "--unit: expected the unit of" in error
        assert call(*command, "--unit", "kcal/mol")[0] == 0
    # a potential of these numbers in kcal/mol is one in eV of 0.0434 of them
    potential.units = ("eV",)
    potential.save(tmp_path / "q.pt")
    assert call("predict", tmp_path / "q.pt", tmp_path / "f.extxyz", "-o", tmp_path / "q.extxyz")[0] == 0
    given, other = (ase.io.read(tmp_path / name).get_potential_energy() for name in ("o.extxyz", "q.extxyz"))
    assert given == pytest.approx(other * 0.0433641, rel=1e-5)
    assert call("evaluate", tmp_path / "q.pt", "--data", tmp_path / "f.extxyz", "--unit", "eV")[0] == 2
