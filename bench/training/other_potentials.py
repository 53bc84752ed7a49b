"""SphereNet beside MACE and PaiNN: `python -m bench.training.other_potentials DATA`, with mace-torch and schnetpack.

All are trained by `spherenet-fast train` on the same frames of DATA, any file that ASE reads, on as many threads for as
many minutes, with the same loss (absolute errors), schedule (cosine) and average of the weights; the optimizer and its
learning rate are each model's own. Their test errors, and the time of energies and forces of one structure in dynamics
with ASE, become rows of bench/results/training/other_potentials.csv.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from bench.tables import Row, pipes
from bench.training.run_rows import RESULTS, append, rows_of_run

EXPERIMENT = "other_potentials"
SETTINGS = {
    "SphereNet": [],
    "MACE": ["model.name=bench.providers.mace_models.MACE", "optimizer.name=adamw", "optimizer.lr=0.01"],
    "PaiNN": ["model.name=bench.providers.schnetpack_models.PaiNN", "optimizer.name=adamw", "optimizer.lr=0.001"],
}
CALLS = 50
KINDS = (("energy", "MAE"), ("energy", "RMSE"), ("forces", "MAE"), ("forces", "RMSE"), ("call", "median"))


def train(model: str, folder: Path, arguments: argparse.Namespace) -> None:
    """Fill `folder`, unless that has been done."""
    if (folder / "results.json").exists():
        return
    settings = [*SETTINGS[model], f"training.max_time={arguments.minutes}", f"training.threads={arguments.threads}"]
    settings += ["training.augment_reflections=false", *arguments.more]  # all are even under reflection
    command = [sys.executable, "-m", "spherenet_fast.cli", "train", str(arguments.data), "--out", str(folder)]
    subprocess.run([*command, *(word for setting in settings for word in ("--set", setting))], check=True)


def milliseconds_per_call(folder: Path, data: Path, threads: int) -> float:
    """Energies and forces of the first frame, moved a little before every call."""
    import torch
    from ase.io import read

    from spherenet_fast import keep_freed_memory
    from spherenet_fast.calculators import SphereNetCalculator

    torch.set_num_threads(threads)
    keep_freed_memory()
    atoms = read(data, 0)
    atoms.calc = SphereNetCalculator(folder / "best.ckpt")
    times = []
    for seed in range(2 * CALLS):
        atoms.rattle(1e-3, seed=seed)
        start = time.perf_counter()
        atoms.get_forces()
        times.append(1000 * (time.perf_counter() - start))
    return median(times[CALLS:])


def rows(model: str, folder: Path, arguments: argparse.Namespace) -> list[Row]:
    words = argparse.Namespace(
        experiment=EXPERIMENT, data=arguments.name or arguments.data.stem, settings=arguments.settings, commit=None
    )
    found = [row | {"model": model} for row in rows_of_run(folder, words) if row["metric"] == "MAE"]
    results = json.loads((folder / "results.json").read_text())
    found += [row | {"metric": "RMSE", "value": f"{results['rmse'][row['target']]:.5g}"} for row in found]
    took = milliseconds_per_call(folder, arguments.data, arguments.threads)
    return [*found, found[0] | {"target": "call", "metric": "median", "unit": "ms", "value": f"{took:.3g}"}]


def side_by_side(rows: list[Row]) -> str:
    """A line for each model, those of the same data beneath each other."""
    units = {(row["target"], row["metric"]): row["unit"] for row in rows}
    heads = [f"{target}, {metric}, {units[target, metric]}" for target, metric in KINDS if (target, metric) in units]
    spent = ["train", "test", "steps", "batch", "minutes", "threads", "hardware"]
    lines: dict[tuple, Row] = {}
    for row in rows:
        line = lines.setdefault((row["data"], row["model"], row["seed"], row["settings"]), dict(row))
        line[f"{row['target']}, {row['metric']}, {row['unit']}"] = f"{float(row['value']):.3g}"
    columns = ["data", "model", *heads, "settings", "seed", *spent]
    return pipes(columns, [[line.get(column, "") for column in columns] for line in lines.values()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="any file with energies and forces that ASE reads")
    parser.add_argument("--name", help="of the data in the table [that of the file]")
    parser.add_argument("--models", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="[all]")
    parser.add_argument("--minutes", type=float, default=12, help="of each training [12]")
    parser.add_argument("--threads", type=int, default=1, help="[1]")
    parser.add_argument("--out", type=Path, default=Path("runs/other_potentials"), help="folder of the runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the CSV file")
    parser.add_argument("--settings", default="", help="what the rows say of the circumstances")
    parser.add_argument("--set", dest="more", action="append", default=[], metavar="KEY=VALUE", help="for every run")
    arguments = parser.parse_args()
    for model in arguments.models:
        folder = arguments.out / f"{arguments.name or arguments.data.stem}-{model}"
        train(model, folder, arguments)
        append(arguments.results / f"{EXPERIMENT}.csv", rows(model, folder, arguments))


if __name__ == "__main__":
    main()
