"""The paper's experiments, ours beside the paper's: `python bench/experiments.py`.

Reads bench/results/training/*.csv, one row for each error on test data, and bench/paper.csv, the numbers of the paper;
and of bench/results/potentials what smoothness.py and dynamics.py have found of trained models; writes
bench/results/experiments.md.

The paper's Tables 1 to 5 have two versions: `value` is the number in the `version` named beside it, "Spherical Message
Passing for 3D Graph Networks"; `iclr_2022` that of the later one, known for SphereNet on QM9 alone. Of our models
"SphereNet" has the paper's torsion, "SphereNet, smooth" that of the model's option `torsion`.

A run of `spherenet-fast train` becomes rows with

    python bench/experiments.py --add runs/ablation-full --experiment ablation --data ethanol
"""

import argparse
import csv
import datetime
import json
from pathlib import Path

from report import pipes
from table import Row

HERE = Path(__file__).parent
COLUMNS = (
    "experiment model data settings seed train test steps batch minutes threads hardware torch commit date "
    "target metric unit value"
).split()
KEY = ("experiment", "model", "data", "settings", "seed", "train", "steps", "batch", "target", "metric")  # of one run
PAPER_COLUMNS = "table experiment model data target metric unit version value iclr_2022".split()
BUDGET = ("settings", "train", "test", "steps", "batch", "threads", "hardware", "torch")  # what must agree to compare
ABLATION = ("SphereNet", "w/o φ", "w/o (θ, φ)")  # the paper's, from the most geometry to the least
SMOOTH = ("SphereNet, smooth", "SphereNet, smooth_even")  # the first of them with another torsion
PAPERS = {"value": "the paper (3D Graph Networks)", "iclr_2022": "ICLR 2022"}  # column of paper.csv: head in a table
TITLES = {
    "ablation": "Ablation (the paper's Table 4)", "md17": "MD17 (Table 3)", "qm9": "QM9 (Table 1)",
    "slabs": "Adsorption energies of slabs (Table 2 has those of OC20)",
}  # fmt: skip


MEASURED = {
    "smoothness": "Smoothness (`python bench/smoothness.py`)",
    "dynamics": "Relaxation, frequencies and dynamics (`python bench/dynamics.py`)",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=HERE / "results" / "training", help="folder of the CSV files")
    parser.add_argument(
        "--potentials", type=Path, default=HERE / "results" / "potentials", help="folder of what trained models do"
    )
    parser.add_argument("--paper", type=Path, default=HERE / "paper.csv", help="the paper's numbers")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "experiments.md", help="table to write")
    parser.add_argument("--add", type=Path, nargs="+", metavar="RUN", help="first add these finished runs to --results")
    for name, text in {
        "experiment": "ablation, md17, qm9 or another name: the CSV file",
        "data": "molecule or data set, as the table is to call it [its source in the config]",
        "settings": "what differs from the config of that name, in words",
        "commit": "of the tree that the run used [this one]",
    }.items():
        parser.add_argument(f"--{name}", help=f"with --add: {text}")
    arguments = parser.parse_args()
    if arguments.add and not arguments.experiment:
        parser.error("--experiment: expected a name with --add, got none")
    for run in arguments.add or []:
        append(arguments.results / f"{arguments.experiment}.csv", rows_of_run(run, arguments))
    rows = [row for path in sorted(arguments.results.glob("*.csv")) for row in read(path, COLUMNS)]
    if not rows:
        parser.error(f"--results: expected a folder with CSV files of results, found none in {arguments.results}")
    paper = read(arguments.paper, PAPER_COLUMNS)
    arguments.out.write_text(markdown(rows, paper, of_trained_models(arguments.potentials)))


def read(path: Path, columns: list[str]) -> list[Row]:
    """All rows of a file. Raises ValueError if its columns are not `columns`, or a value is no number."""
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    if reader.fieldnames != columns:
        raise ValueError(f"{path}: expected columns {columns}, got {reader.fieldnames}")
    for row in rows:
        for name in {"value", "iclr_2022"} & set(columns):
            if name == "value" or row[name]:
                float(row[name])
    return rows


def append(path: Path, rows: list[Row], columns=tuple(COLUMNS), key=KEY) -> None:
    """Add rows to a file of these columns, in place of rows with the same values of `key`."""
    renewed = {tuple(row[name] for name in key) for row in rows}
    before = read(path, list(columns)) if path.exists() else []
    kept = [row for row in before if tuple(row[name] for name in key) not in renewed]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept + rows)


def rows_of_run(run: Path, arguments: argparse.Namespace) -> list[Row]:
    """The test errors of a folder that `spherenet-fast train` has filled. Raises FileNotFoundError if it has not."""
    import numpy as np
    import torch
    from table import commit, device_name

    results, config = json.loads((run / "results.json").read_text()), config_of(run)
    with (run / "metrics.csv").open(newline="") as file:
        minutes = max(float(row["minutes"]) for row in csv.DictReader(file))
    split = np.load(run / "split.npz")
    training, device = config["training"], "cpu" if config["training"]["device"] == "cpu" else _default_device()
    row = {
        "experiment": arguments.experiment, "model": model_name(config["model"]),
        "data": arguments.data or Path(config["data"]["source"]).stem.replace("_", " "),
        "settings": arguments.settings or "", "seed": training["seed"],
        "train": len(split["train"]), "test": len(split["test"]), "steps": results["step"],
        "batch": training["batch_size"], "minutes": f"{minutes:.1f}",
        "threads": training["threads"] or torch.get_num_threads(), "hardware": device_name(device),
        "torch": torch.__version__, "commit": arguments.commit or commit(),
        "date": datetime.date.fromtimestamp((run / "results.json").stat().st_mtime).isoformat(),
    }  # fmt: skip
    row = {name: str(value) for name, value in row.items()}
    rows = [
        row | {"target": name, "metric": "MAE", "unit": results["units"][name] or "", "value": f"{value:.5g}"}
        for name, value in results["mae"].items()
    ]
    shares = results.get("within", {})  # of errors within a limit, where the config names one
    return rows + [
        row | {"target": name, "metric": "EwT", "unit": "%", "value": f"{100 * share:.5g}"}
        for name, share in shares.items()
    ]


def config_of(run: Path) -> dict:
    """The config of a run's folder; a SphereNet whose config does not say which torsion it has, has the paper's."""
    import yaml

    from spherenet_fast.training.config.files import config_to_dict, load_config

    config, stated = config_to_dict(load_config(run / "config.yaml")), yaml.safe_load((run / "config.yaml").read_text())
    if "torsion" in config["model"]:
        config["model"]["torsion"] = stated["model"].get("torsion", "paper")
    return config


def _default_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def model_name(options: dict) -> str:
    """The model of a config's section `model` as the paper calls it; SphereNet with another torsion as in SMOOTH."""
    if options["name"] != ABLATION[0]:
        return options["name"].replace("PlusPlus", "++")
    torsion = options["torsion"] if options["use_torsion"] else None
    if torsion is None:
        return ABLATION[1] if options["use_angle"] else ABLATION[2]
    return ABLATION[0] if torsion == "paper" else f"{ABLATION[0]}, {torsion}"


def markdown(rows: list[Row], paper: list[Row], more: list[str] | tuple[str, ...] = ()) -> str:
    """The whole document, ended by the parts `more`."""
    parts = [
        "# The paper's experiments",
        f"Written by `python bench/experiments.py` from `bench/results/training/*.csv` and `bench/paper.csv`; newest "
        f"result of {max(row['date'] for row in rows)}. Errors are on test data that was not trained on. What ours has "
        "cost stands beside it and is far below the paper's thousand epochs: its numbers are the goal, not a "
        "comparison at equal effort. Its cells are empty where no number was at hand. The model SphereNet has the "
        "paper's torsion; `smooth` and `smooth_even` are the model's option `torsion`.",
    ]
    found = list(dict.fromkeys(row["experiment"] for row in rows))
    for experiment in [*(name for name in TITLES if name in found), *(name for name in found if name not in TITLES)]:
        own = [row for row in rows if row["experiment"] == experiment]
        parts.append(f"## {TITLES.get(experiment, experiment)}")
        parts += [ablation(own, paper), verdict(own)] if experiment == "ablation" else []
        parts.append(results(own, paper))
    return "\n\n".join(filter(None, [*parts, *more])) + "\n"


def of_trained_models(folder: Path) -> list[str]:
    """Titles and tables of what smoothness.py and dynamics.py have found, all columns; none where they have not run."""
    parts = []
    for name, text in MEASURED.items():
        path = folder / f"{name}.csv"
        if path.exists():
            with path.open(newline="") as file:
                head, *lines = csv.reader(file)
            parts += [f"## {text}", pipes([column.replace("_", " ") for column in head], lines)]
    return parts


def of_paper(row: Row, paper: list[Row], column: str = "value") -> str:
    """The paper's number for the same quantity in the same unit; "" where there is none."""
    wanted = row | {"model": ABLATION[0]} if row["model"] in SMOOTH else row
    place = ("experiment", "model", "data", "target", "metric", "unit")
    return next((other[column] for other in paper if all(other[name] == wanted[name] for name in place)), "")


def results(rows: list[Row], paper: list[Row]) -> str:
    """One line for each number: ours, the paper's, and what ours has cost."""
    spent = ["train", "test", "steps", "batch", "minutes", "threads", "hardware"]
    head = ["data", "model", "error", "unit", "ours", *PAPERS.values(), "settings", "seed", *spent]
    head.append("torch, commit, date")
    lines = [
        [row["data"], row["model"], f"{row['target']}, {row['metric']}", row["unit"], digits(row["value"])]
        + [of_paper(row, paper, column) for column in PAPERS]
        + [row["settings"], row["seed"], *(row[name] for name in spent)]
        + [f"{row['torch']}, {row['commit']}, {row['date']}"]
        for row in rows
    ]
    return pipes(head, lines)


def comparisons(rows: list[Row]) -> dict[tuple, dict[str, Row]]:
    """The runs of the ablation that may be compared: {(data, target, unit, seed, *budget): {model: row}}."""
    groups: dict[tuple, dict[str, Row]] = {}
    for row in (row for row in rows if row["metric"] == "MAE"):
        key = tuple(row[name] for name in ("data", "target", "unit", "seed", *BUDGET))
        groups.setdefault(key, {})[row["model"]] = row
    return groups


def ablation(rows: list[Row], paper: list[Row]) -> str:
    """One line for each molecule, target and seed, with whether the order is the paper's."""
    names = (*SMOOTH, *ABLATION)
    head = ["data", "MAE of", "unit", "seed", *names, "in the paper's order?", "budget of each model"]
    lines = []
    for (data, target, unit, seed, *_), models in comparisons(rows).items():
        values = [digits(models[name]["value"]) if name in models else "" for name in names]
        first = next(iter(models.values()))
        shared = f"{int(first['train']):,} for training, {int(first['steps']):,} steps of {first['batch']}"
        budget = "; ".join(filter(None, [shared, first["settings"]]))
        lines.append([data, target, unit, seed, *values, orders(models), budget])
    for place in dict.fromkeys(key[:3] for key in comparisons(rows)):
        wanted = dict(zip(("data", "target", "unit"), place), experiment="ablation", metric="MAE")
        values = [of_paper(wanted | {"model": name}, paper) for name in ABLATION]
        if any(values):
            lines.append([*place, PAPERS["value"], *("" for _ in SMOOTH), *values, "", ""])
    return pipes(head, lines)


def order(models: dict[str, Row], full: str) -> str:
    """ "yes" if more geometry has the smaller error; else the order found, of the models that have run.

    full: the model with all geometry, "SphereNet" or one of SMOOTH.
    """
    wanted = [full, *ABLATION[1:]]
    found = sorted((name for name in wanted if name in models), key=lambda name: float(models[name]["value"]))
    if len(found) < len(wanted):
        return f"{' < '.join(found)}; not all have run" if len(found) > 1 else "not all have run"
    return "yes" if found == wanted else f"no: {' < '.join(found)}"


def orders(models: dict[str, Row]) -> str:
    """`order` for each torsion that has run."""
    found = {full: order(models, full) for full in (*SMOOTH, ABLATION[0]) if full in models}
    if len(found) > 1:
        return "; ".join(f"{full}: {text}" for full, text in found.items())
    return next(iter(found.values()), "not all have run")


def verdict(rows: list[Row]) -> str:
    """For each torsion, in how many lines of the ablation the paper's order holds, for each target; "" without one."""
    sentences = []
    for full in (*SMOOTH, ABLATION[0]):
        parts = []
        own = {key: models for key, models in comparisons(rows).items() if full in models}
        for target in dict.fromkeys(key[1] for key in own):
            texts = [order(models, full) for key, models in own.items() if key[1] == target]
            complete = [text for text in texts if not text.endswith("not all have run")]
            parts.append(f"of {target} in {complete.count('yes')} of {len(complete)}")
        if parts:
            names = " < ".join([full, *ABLATION[1:]])
            sentences.append(f"{names} holds for errors {', '.join(parts)} comparisons at equal budgets.")
    return " ".join(sentences)


def digits(value: str) -> str:
    """Three significant digits."""
    return f"{float(value):,.0f}" if abs(float(value)) >= 1000 else f"{float(value):#.3g}".rstrip(".")


if __name__ == "__main__":
    main()
