"""The result files of `bench.speed.run`, one for each device."""

import re
from pathlib import Path

import torch

from bench import tables
from bench.tables import Row

COLUMNS = "case provider mode metric unit x median p20 p80 device torch threads commit".split()
RESULTS = Path(__file__).parents[1] / "results" / "speed"
CASES = {
    "build": "building the model", "qm9": "QM9, 32 molecules", "qm9-128": "QM9, 128 molecules",
    "qm9-512": "QM9, 512 molecules", "ethanol-1": "ethanol, 1 frame", "ethanol": "ethanol, 16 frames",
    "aspirin-1": "aspirin, 1 frame",
    "aspirin": "aspirin, 8 frames", "slab": "slab", "droplet": "droplet", "liquid": "liquid", "graph": "neighbors",
    "models": "all models, QM9, 32 molecules",
}  # fmt: skip
REPLAY, CAPTURED = "_replay", "_captured"  # behind a procedure's name: recorded as CUDA graph


def file_name(row: Row, device: str) -> str:
    """`amd-epyc-zen-3-2-threads.csv`; a GPU's name alone."""
    name = row["device"] if torch.device(device).type == "cuda" else f"{row['device']} {row['threads']} threads"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") + ".csv"


def read(path: Path) -> list[Row]:
    """All rows of a file. Raises ValueError if its columns are not COLUMNS."""
    return tables.read(path, COLUMNS)


def update(path: Path, rows: list[Row], order: tuple[str, ...]) -> None:
    """Write `rows` to a file, instead of the older rows of the same case and provider and beside all others.

    order: of the cases in the file.
    """
    tables.append(path, rows, COLUMNS, ("case", "provider"), lambda row: order.index(row["case"]))


def heading(rows: list[Row]) -> str:
    """Device, threads, torch and commit of a result file."""
    commits = ", ".join(dict.fromkeys(row["commit"] for row in rows))
    versions = ", ".join(dict.fromkeys(row["torch"] for row in rows))
    threads = rows[0]["threads"] + (" thread" if rows[0]["threads"] == "1" else " threads")
    return f"{rows[0]['device']}, {threads}, torch {versions}, commit {commits}"
