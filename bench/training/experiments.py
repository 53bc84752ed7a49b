"""The paper's experiments, ours beside the paper's: `python -m bench.training.experiments`.

Reads bench/results/training/*.csv, one row for each error on test data, bench/data/paper.csv, the numbers of the paper,
and of bench/results/potentials what bench.potentials has found of trained models; writes bench/results/experiments.md.

The paper's Tables 1 to 5 have two versions: `value` is the number in the `version` named beside it, "Spherical Message
Passing for 3D Graph Networks"; `iclr_2022` that of the later one, known for SphereNet on QM9 alone. Of our models
"SphereNet" has the paper's torsion, "SphereNet, smooth" that of the model's option `torsion`.

A run of `spherenet-fast train` becomes rows with

    python -m bench.training.experiments --add runs/ablation-full --experiment ablation --data ethanol
"""

import argparse
import csv
from pathlib import Path

from bench.tables import Row, pipes
from bench.training import other_potentials
from bench.training.run_rows import ABLATION, RESULTS, SMOOTH, append, read, rows_of_run

BENCH = Path(__file__).parents[1]
PAPER_COLUMNS = "table experiment model data target metric unit version value iclr_2022".split()
BUDGET = ("settings", "train", "test", "steps", "batch", "threads", "hardware", "torch")  # what must agree to compare
PAPERS = {"value": "the paper (3D Graph Networks)", "iclr_2022": "ICLR 2022"}  # column of paper.csv: head in a table
TITLES = {
    "ablation": "Ablation (the paper's Table 4)", "md17": "MD17 (Table 3)", "qm9": "QM9 (Table 1)",
    "other_potentials": "Beside other potentials, by the same trainer in the same time",
    "slabs": "Adsorption energies of slabs (Table 2 has those of OC20)",
}  # fmt: skip
MEASURED = {
    "smoothness": "Smoothness (`python -m bench.potentials.smoothness`)",
    "dynamics": "Relaxation, frequencies and dynamics (`python -m bench.potentials.dynamics`)",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the CSV files")
    parser.add_argument(
        "--potentials", type=Path, default=BENCH / "results" / "potentials", help="folder of what trained models do"
    )
    parser.add_argument("--paper", type=Path, default=BENCH / "data" / "paper.csv", help="the paper's numbers")
    parser.add_argument("--out", type=Path, default=BENCH / "results" / "experiments.md", help="table to write")
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
    rows = [row for path in sorted(arguments.results.glob("*.csv")) for row in read(path)]
    if not rows:
        parser.error(f"--results: expected a folder with CSV files of results, found none in {arguments.results}")
    paper = read(arguments.paper, PAPER_COLUMNS)
    arguments.out.write_text(markdown(rows, paper, of_trained_models(arguments.potentials)))


def markdown(rows: list[Row], paper: list[Row], more: list[str] | tuple[str, ...] = ()) -> str:
    """The whole document, ended by the parts `more`."""
    parts = [
        "# The paper's experiments",
        "Written by `python -m bench.training.experiments` from `bench/results/training/*.csv` and "
        f"`bench/data/paper.csv`; newest result of {max(row['date'] for row in rows)}. Errors are on test data that "
        "was not trained on. What ours has cost stands beside it and is far below the paper's thousand epochs: its "
        "numbers are the goal, not a comparison at equal effort. Its cells are empty where no number was at hand. The "
        "model SphereNet has the paper's torsion; `smooth` and `smooth_even` are the model's option `torsion`.",
    ]
    found = list(dict.fromkeys(row["experiment"] for row in rows))
    for experiment in [*(name for name in TITLES if name in found), *(name for name in found if name not in TITLES)]:
        own = [row for row in rows if row["experiment"] == experiment]
        parts.append(f"## {TITLES.get(experiment, experiment)}")
        parts += [ablation(own, paper), verdict(own)] if experiment == "ablation" else []
        side_by_side = experiment == other_potentials.EXPERIMENT
        parts.append(other_potentials.side_by_side(own) if side_by_side else results(own, paper))
    return "\n\n".join(filter(None, [*parts, *more])) + "\n"


def of_trained_models(folder: Path) -> list[str]:
    """Titles and tables of what has been found of trained models, all columns; none where nothing has been measured."""
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
    """For each torsion, in how many complete lines of the ablation the paper's order holds; "" without such lines."""
    sentences = []
    for full in (*SMOOTH, ABLATION[0]):
        parts = []
        own = {key: models for key, models in comparisons(rows).items() if full in models}
        for target in dict.fromkeys(key[1] for key in own):
            texts = [order(models, full) for key, models in own.items() if key[1] == target]
            complete = [text for text in texts if not text.endswith("not all have run")]
            if complete:
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
