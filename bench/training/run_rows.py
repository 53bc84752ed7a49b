"""From a finished run of `spherenet-fast train` to the rows of its test errors, and the files of such rows."""

import argparse
import csv
import datetime
import json
from pathlib import Path

from bench import tables
from bench.tables import Row

RESULTS = Path(__file__).parents[1] / "results" / "training"
COLUMNS = (
    "experiment model data settings seed train test steps batch minutes threads hardware torch commit date "
    "target metric unit value"
).split()
KEY = ("experiment", "model", "data", "settings", "seed", "train", "steps", "batch", "target", "metric")  # of one run
ABLATION = ("SphereNet", "w/o φ", "w/o (θ, φ)")  # the paper's, from the most geometry to the least
SMOOTH = ("SphereNet, smooth", "SphereNet, smooth_even")  # the first of them with another torsion


def read(path: Path, columns: list[str] = COLUMNS) -> list[Row]:
    """All rows of a file. Raises ValueError if its columns are not `columns`, or a value is no number."""
    rows = tables.read(path, columns)
    for row in rows:
        for name in {"value", "iclr_2022"} & set(columns):
            if name == "value" or row[name]:
                float(row[name])
    return rows


def append(path: Path, rows: list[Row]) -> None:
    """Add rows to a file, in place of those of the same run and target."""
    tables.append(path, rows, COLUMNS, KEY)


def rows_of_run(run: Path, arguments: argparse.Namespace) -> list[Row]:
    """The test errors of a folder that `spherenet-fast train` has filled. Raises FileNotFoundError if it has not."""
    import numpy as np
    import torch

    from bench.machine import commit, device_name

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
