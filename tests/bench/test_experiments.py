"""The table of the paper's experiments: from runs to rows, from rows to the comparison."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from training_runs import tiny_config

from bench.training import experiments, run_rows
from spherenet_fast.training import load_config, train
from spherenet_fast.training.config.files import config_to_dict

BENCH = Path(__file__).parents[2] / "bench"
EXPERIMENTS = [sys.executable, "-m", "bench.training.experiments"]
PAPER = "the paper (3D Graph Networks)"


def result(**values):
    """A row of a results file."""
    row = dict.fromkeys(run_rows.COLUMNS, "") | {
        "experiment": "ablation", "model": "SphereNet", "data": "ethanol", "seed": "0", "train": "980", "test": "1000",
        "steps": "4000", "batch": "8", "minutes": "9.5", "threads": "1", "hardware": "abacus", "torch": "2", "metric":
        "MAE", "commit": "c0ffee", "date": "2026-11-22", "target": "forces", "unit": "kcal/mol/Ang", "value": "1",
    }  # fmt: skip
    return row | {name: str(value) for name, value in values.items()}


def study(values, **same):
    """Three rows: the models of the ablation with these errors."""
    return [result(model=m, value=v, **same) for m, v in zip(experiments.ABLATION, values)]


def cells(text, start):
    """The cells of the lines of a table that start with these cells."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return [line for line in lines if line[: len(start)] == start]


def test_order_is_reported_as_it_is():
    rows = study((0.5, 0.6, 0.9)) + study((0.7, 0.6, 0.9), seed=1)
    rows += study((0.2, 0.3), data="toluene")
    text = experiments.markdown(rows, [])
    assert [line[4:8] for line in cells(text, ["ethanol", "forces", "kcal/mol/Ang"])] == [
        ["0.500", "0.600", "0.900", "yes"],
        ["0.700", "0.600", "0.900", "no: w/o φ < SphereNet < w/o (θ, φ)"],
    ]
    assert cells(text, ["toluene", "forces", "kcal/mol/Ang"])[0][4:8] == [
        *("0.200", "0.300", ""), "SphereNet < w/o φ; not all have run",
    ]  # fmt: skip
    assert "holds for errors of forces in 1 of 2 comparisons" in text


def test_every_torsion_has_its_own_order():
    rows = study((0.7, 0.6, 0.9)) + [result(model="SphereNet, smooth", value=0.5)]
    text = experiments.markdown(rows, [])
    assert cells(text, ["ethanol", "forces", "kcal/mol/Ang"])[0][4:9] == [
        *("0.500", "0.700", "0.600", "0.900"), "SphereNet, smooth: yes; SphereNet: no: w/o φ < SphereNet < w/o (θ, φ)",
    ]  # fmt: skip
    for name, count in (("SphereNet, smooth", 1), ("SphereNet", 0)):
        assert f"{name} < w/o φ < w/o (θ, φ) holds for errors of forces in {count} of 1 comparisons" in text


def test_unequal_budgets_are_not_compared():
    rows = study((0.5, 0.6, 0.9))
    rows[2]["steps"] = "8000"
    text = experiments.ablation(rows, [])
    assert text.count("not all have run") == 2 and "yes" not in text


def test_the_paper_s_number_stands_beside_ours_in_the_same_unit():
    paper = experiments.read(BENCH / "data/paper.csv", experiments.PAPER_COLUMNS)
    same = dict(experiment="md17", data="toluene")
    rows = [result(value=0.3, **same), result(value=0.1, unit="eV/Ang", **same)]
    lines = cells(experiments.markdown(rows, paper), ["toluene", "SphereNet", "forces, MAE"])
    assert [line[3:6] for line in lines] == [["kcal/mol/Ang", "0.300", "0.155"], ["eV/Ang", "0.100", ""]]
    same = dict(experiment="qm9", data="QM9", target="mu", unit="D")
    rows = [result(model="SphereNet, smooth", value=1, **same)]
    (line,) = cells(experiments.markdown(rows, paper), ["QM9", "SphereNet, smooth", "mu, MAE"])
    assert line[3:7] == ["D", "1.00", "0.0269", "0.0245"]  # both versions of the paper
    (line,) = cells(experiments.markdown([result()], paper), ["ethanol", "forces", "kcal/mol/Ang", PAPER])
    assert line[4:7] == ["0.208", "0.22", "0.249"]


def test_other_potentials_have_a_line_each():
    same = dict(experiment="other_potentials", data="alanine dipeptide")
    errors = [("energy", "MAE", "eV", 0.01), ("energy", "RMSE", "eV", 0.02), ("call", "median", "ms", 5)]
    rows = [
        result(model=model, target=target, metric=metric, unit=unit, value=factor * value, **same)
        for model, factor in (("SphereNet", 1), ("PaiNN", 2))
        for target, metric, unit, value in errors
    ]
    text = experiments.markdown(rows, [])
    (head,), lines = cells(text, ["data"]), cells(text, ["alanine dipeptide"])
    assert head[1:5] == ["model", "energy, MAE, eV", "energy, RMSE, eV", "call, median, ms"]
    assert [line[1:5] for line in lines] == [["SphereNet", "0.01", "0.02", "5"], ["PaiNN", "0.02", "0.04", "10"]]


def test_shipped_numbers_are_well_formed_and_the_document_is_up_to_date():
    rows = [row for path in sorted((BENCH / "results/training").glob("*.csv")) for row in experiments.read(path)]
    paper = experiments.read(BENCH / "data/paper.csv", experiments.PAPER_COLUMNS)
    more = experiments.of_trained_models(BENCH / "results/potentials")
    assert (BENCH / "results/experiments.md").read_text() == experiments.markdown(rows, paper, more)
    assert len({tuple(row[name] for name in experiments.PAPER_COLUMNS[:-2]) for row in paper}) == len(paper) == 197
    assert all(row["version"] and row["table"] in "12345" for row in paper)


def test_a_finished_run_becomes_rows_and_a_document(tmp_path):
    train(tiny_config(model__use_torsion="false"), tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    (tmp_path / "run" / "results.json").write_text(json.dumps(results | {"within": {"energy": 0.25}}))
    command = [*EXPERIMENTS, "--results", tmp_path / "csv", "--out", tmp_path / "table.md"]
    added = ["--add", tmp_path / "run", "--experiment", "ablation", "--commit", "c0ffee"]
    for _ in range(2):  # the same run again replaces its rows
        subprocess.run([*command, *added], cwd=BENCH.parent, check=True)
    with (tmp_path / "csv" / "ablation.csv").open(newline="") as file:
        energy, forces, within = csv.DictReader(file)
    assert float(energy["value"]) == pytest.approx(results["mae"]["energy"], rel=1e-4)  # the file keeps five digits
    assert float(forces["value"]) == pytest.approx(results["mae"]["forces"], rel=1e-4)
    assert [within[name] for name in ("target", "metric", "unit", "value")] == ["energy", "EwT", "%", "25"]
    expected = {
        "model": "w/o φ", "data": "ethanol", "train": "9", "test": "4", "steps": "12", "batch": "2", "threads": "1",
        "commit": "c0ffee", "unit": "kcal/mol/Ang",
    }  # fmt: skip
    assert {name: forces[name] for name in expected} == expected
    assert len(cells((tmp_path / "table.md").read_text(), ["ethanol", "w/o φ"])) == 3


def test_what_trained_models_do_ends_the_document(tmp_path):
    assert experiments.of_trained_models(tmp_path) == []
    (tmp_path / "dynamics.csv").write_text('model,relax_steps,seed\n"SphereNet, smooth",15,\n')
    text = experiments.markdown([result()], [], experiments.of_trained_models(tmp_path))
    assert "## Relaxation, frequencies and dynamics" in text and "## Smoothness" not in text
    assert cells(text, ["model", "relax steps"]) and cells(text, ["SphereNet, smooth", "15"])


def test_models_have_the_paper_s_names():
    for name, config in {
        "SphereNet": load_config("ablation:full"), "SphereNet, smooth": load_config("ablation:smooth"),
        "SphereNet, smooth_even": load_config("ablation:smooth_even"), "w/o φ": load_config("ablation:no_torsion"),
        "w/o (θ, φ)": load_config("ablation:no_angle"), "SchNet": load_config("ethanol", ["model.name=SchNet"]),
        "DimeNet++": load_config("ethanol", ["model.name=DimeNetPlusPlus"]),
    }.items():  # fmt: skip
        assert run_rows.model_name(config_to_dict(config)["model"]) == name


def test_a_run_that_does_not_say_has_the_paper_s_torsion(tmp_path):
    for torsion, name in ((None, "w/o φ"), ("smooth", "SphereNet, smooth"), ("", "SphereNet")):
        config = config_to_dict(load_config("ethanol"))
        config["model"]["torsion"] = torsion
        if torsion == "":
            del config["model"]["torsion"]
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        assert run_rows.model_name(run_rows.config_of(tmp_path)["model"]) == name


def test_wrong_files_are_named(tmp_path):
    (tmp_path / "a.csv").write_text("model,value\n")
    with pytest.raises(ValueError, match="a.csv: expected columns"):
        experiments.read(tmp_path / "a.csv")
    command = [*EXPERIMENTS, "--results", tmp_path / "none", "--out", tmp_path / "t.md"]
    process = subprocess.run(command, cwd=BENCH.parent, capture_output=True, text=True)
    assert process.returncode == 2 and "found none" in process.stderr and not (tmp_path / "t.md").exists()
