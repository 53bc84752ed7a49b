"""Evaluating a potential: errors in several units, per atom and by element; predictions as pictures and files."""

import csv

import ase.io
import numpy as np
import pytest
import torch
from ase.calculators.calculator import PropertyNotImplementedError
from commands import call, waters
from training_runs import random_molecules, untrained

from spherenet_fast.calculators import SphereNetCalculator
from spherenet_fast.data import Molecules, conversion, read_molecules
from spherenet_fast.plots import Compared, draw_errors
from spherenet_fast.training.evaluation import predictions
from spherenet_fast.training.evaluation.files import csv_text, labeled_structures
from spherenet_fast.training.evaluation.tables import detailed_table
from spherenet_fast.training.metrics import evaluate


@pytest.fixture(scope="module")
def of_ethanol():
    """A potential with random numbers, and what it predicts of some frames."""
    potential, molecules, split = untrained()
    return potential, molecules, split.test, predictions(potential, molecules, split.test, 3)


def rows(table):
    """{target and unit: (MAE, RMSE)} of a table."""
    found, name = {}, ""
    for line in table.splitlines()[1:]:
        *words, mae, rmse, unit = line.split()
        name = " ".join(words) or name
        found[name, unit] = float(mae), float(rmse)
    return found


def test_errors_are_those_of_the_training(of_ethanol):
    potential, molecules, test, found = of_ethanol
    errors, expected = found.errors(potential), evaluate(potential, molecules, test)
    for name in ("energy", "forces"):  # float64 sums in another order
        assert errors.mae[name] == pytest.approx(expected.mae[name], rel=1e-12)
        assert errors.rmse[name] == pytest.approx(expected.rmse[name], rel=1e-12)


def test_energies_are_in_both_units_and_per_atom(of_ethanol):
    potential, _, _, found = of_ethanol
    table = rows(detailed_table(potential, found))
    to_mev = conversion("kcal/mol", "meV")
    # five digits are shown
    assert table["energy", "meV"] == pytest.approx(np.multiply(table["energy", "kcal/mol"], to_mev), rel=1e-4)
    assert table["energy per atom", "meV"] == pytest.approx(np.divide(table["energy", "meV"], 9), rel=1e-4)
    of_forces = table["forces", "kcal/mol/Ang"]
    assert table["forces", "meV/Ang"] == pytest.approx(np.multiply(of_forces, to_mev), rel=1e-4)


def test_errors_of_elements_add_up_to_those_of_all_atoms(of_ethanol):
    potential, _, _, found = of_ethanol
    table = rows(detailed_table(potential, found))
    counts = {"H": 6, "C": 2, "O": 1}
    assert {name for name, _ in table if " on " in name} == {f"forces on {symbol}" for symbol in counts}
    total = sum(count * table[f"forces on {symbol}", "meV/Ang"][0] for symbol, count in counts.items())
    assert total / 9 == pytest.approx(table["forces", "meV/Ang"][0], rel=1e-4)


def test_what_has_no_label_does_not_count():
    potential = untrained(data__targets="[energy]", data__forces=False)[0]
    potential.units, potential.forces = ("eV",), False
    molecules = random_molecules(6).choose(["energy"])
    molecules.y[2] = float("nan")
    molecules = Molecules(**{name: getattr(molecules, name) for name in Molecules.__dataclass_fields__})
    molecules.pos = molecules.pos.double()
    found = predictions(potential, molecules, torch.arange(6))
    known = found.y_label.isfinite()
    mae = (found.y - found.y_label)[known].abs().mean().item()
    table = rows(detailed_table(potential, found))
    assert table["energy", "eV"][0] == pytest.approx(mae, rel=1e-4)
    assert "forces" not in " ".join(name for name, _ in table)
    lines = list(csv.DictReader(csv_text(potential, found).splitlines()))
    assert [line["energy error (eV)"] == "" for line in lines] == [False, False, True, False, False, False]
    structures = labeled_structures(potential, molecules, found)
    assert "REF_energy" not in structures[2].info and structures[1].info["REF_energy"] == molecules.y[1].item()


def test_the_files_repeat_predictions_and_labels(tmp_path):
    potential, molecules, _ = untrained()
    potential.save(tmp_path / "p.pt")
    structures = waters(5)
    structures[3].set_cell([4, 4.5, 5])
    structures[3].pbc = (True, True, False)
    structures[3].calc.atoms = structures[3].copy()  # else its results would count as those of another structure
    ase.io.write(tmp_path / "w.extxyz", structures)
    options = ["--csv", tmp_path / "e.csv", "--out", tmp_path / "e.extxyz", "--plot", tmp_path / "e.png"]
    command = ["evaluate", tmp_path / "p.pt", "--data", tmp_path / "w.extxyz", *options]
    code, output, _ = call(*command)
    assert code == 0 and output.count("written: ") == 3
    assert (tmp_path / "e.png").read_bytes().startswith(b"\x89PNG")
    written, table = ase.io.read(tmp_path / "e.extxyz", ":"), list(csv.DictReader(open(tmp_path / "e.csv")))
    for number, (before, after, line) in enumerate(zip(structures, written, table, strict=True)):
        assert after.info["frame"] == number == int(line["frame"]) and line["formula"] == "H2O"
        # the file has eight decimals
        assert after.info["REF_energy"] == pytest.approx(before.get_potential_energy(), abs=1e-7)
        assert after.arrays["REF_forces"] == pytest.approx(before.get_forces(), abs=1e-7)
        assert np.array_equal(after.pbc, before.pbc) and np.allclose(after.cell, before.cell)
        alone = before.copy()
        alone.calc = SphereNetCalculator(potential)
        # positions are rounded to eight decimals, too, of which forces of some eV/Å make less than 1e-6 eV
        assert after.get_potential_energy() == pytest.approx(alone.get_potential_energy(), abs=1e-6)
        assert after.get_forces() == pytest.approx(alone.get_forces(), abs=1e-6)
        error = float(line["energy error (kcal/mol)"]) * conversion("kcal/mol", "eV")
        assert error == pytest.approx(after.get_potential_energy() - after.info["REF_energy"], abs=1e-6)
        off = np.abs(after.get_forces() - before.get_forces()).max() / conversion("kcal/mol", "eV")
        assert float(line["forces largest error (kcal/mol/Ang)"]) == pytest.approx(off, rel=1e-4)  # six digits
    again = read_molecules(tmp_path / "e.extxyz", keys={"energy": "REF_energy", "forces": "REF_forces"}, forces=True)
    assert again.y[:, 0].tolist() == pytest.approx([atoms.get_potential_energy() for atoms in structures], abs=1e-7)
    for option, name in (("--csv", "e.csv"), ("--out", "e.extxyz"), ("--plot", "e.png")):
        code, _, error = call(*command[:4], option, tmp_path / name)
        assert code == 2 and error.endswith(f"{name} is there already; --overwrite replaces it\n")
    assert call(*command, "--overwrite")[0] == 0
    code, _, error = call(*command[:4], "--plot", tmp_path / "e.pdf")
    assert code == 2 and error == "error: --plot: expected a name that ends in .png or .svg, got 'e.pdf'\n"


def test_targets_that_are_no_energies_are_written_under_their_names():
    potential, molecules, split = untrained(data__source="qm9", data__targets="[mu,gap]", data__forces=False)
    found = predictions(potential, molecules, split.test)
    assert ("mu", "D") in (table := rows(detailed_table(potential, found))) and ("gap", "meV") in table
    structures = labeled_structures(potential, molecules, found)
    assert structures[1].info["mu"] == found.y[1, 0].item()
    assert structures[1].info["REF_gap"] == found.y_label[1, 1].item()
    with pytest.raises((RuntimeError, PropertyNotImplementedError)):
        structures[1].get_potential_energy()


def test_a_picture_shows_predictions_over_labels():
    draw = np.random.default_rng(0)
    label = draw.normal(size=300)
    error = draw.normal(scale=0.1, size=300)
    figure = draw_errors([Compared("energy", "eV", label, label + error), Compared("forces", "eV/Å", label, label)])
    parity, histogram, exact, _ = figure.axes
    assert np.array_equal(parity.lines[1].get_xdata(), label)
    assert np.array_equal(parity.lines[1].get_ydata(), label + error)
    counted = sum(bar.get_height() for bar in histogram.patches)
    assert 0.98 * 300 <= counted <= 300  # all but the farthest hundredth
    assert f"MAE {np.abs(error).mean():.3g}" in histogram.get_title()
    assert exact.get_xlabel() == "forces, label (eV/Å)"
    with pytest.raises(ValueError, match="gap: expected labels to draw predictions over, got none"):
        draw_errors([Compared("gap", "eV", label[:0], label[:0])])
