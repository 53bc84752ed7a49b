"""Names and units of what `predict` writes and `evaluate` compares."""

import ase.io
import pytest
from commands import call, waters
from training_runs import untrained

from spherenet_fast.calculators import SphereNetCalculator


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


def test_a_file_of_predictions_has_energies_of_atoms_and_the_stress_of_cells(tmp_path):
    potential = untrained("float64")[0]
    potential.units = ("eV",)
    potential.save(tmp_path / "p.pt")
    structures = waters(4)
    for atoms in structures[1::2]:
        atoms.set_cell([3.2, 3.3, 3.4])
        atoms.pbc = (True, True, False)
    ase.io.write(tmp_path / "f.extxyz", structures)
    predict = ["predict", tmp_path / "p.pt", tmp_path / "f.extxyz", "-o"]
    assert call(*predict, tmp_path / "o.extxyz", "--batch-size", "3")[0] == 0
    for number, (atoms, found) in enumerate(zip(structures, structures_in(tmp_path / "o.extxyz"), strict=True)):
        atoms.calc = SphereNetCalculator(potential)
        # the file keeps eight decimals, of positions, too: 1e-8 Å times forces of up to 100 eV/Å
        assert found.get_potential_energies() == pytest.approx(atoms.get_potential_energies(), abs=1e-6)
        assert found.get_potential_energies().sum() == pytest.approx(found.get_potential_energy(), abs=1e-6)
        assert ("stress" in found.calc.results) == (number % 2 == 1)
        if number % 2:
            assert found.get_stress() == pytest.approx(atoms.get_stress(), abs=1e-6)
    assert call(*predict, tmp_path / "q.extxyz", "--keys", "stress=NN_stress,energies=NN_energies")[0] == 0
    renamed = structures_in(tmp_path / "q.extxyz")
    assert renamed[0].arrays["NN_energies"].shape == (3,) and "NN_stress" not in renamed[0].info
    assert renamed[1].info["NN_stress"] == pytest.approx(structures_in(tmp_path / "o.extxyz")[1].get_stress(), abs=1e-6)
    assert renamed[1].get_potential_energy() == structures_in(tmp_path / "f.extxyz")[1].get_potential_energy()
    assert set(renamed[1].calc.results) == {"energy", "forces"}  # the labels


def structures_in(path):
    return ase.io.read(path, ":")
