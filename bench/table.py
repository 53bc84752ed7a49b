"""The rows of a result file, and where and on what they were measured."""

import csv
import os
import platform
import re
import subprocess
from pathlib import Path

import torch

COLUMNS = "case provider mode metric unit x median p20 p80 device torch threads commit".split()
RESULTS = Path(__file__).with_name("results")
TITLES = {
    "ours": "spherenet_fast", "floor": "linear floor", "reference": "plain PyTorch",
    "dig_spherenet": "released code (DIG)", "pyg_schnet": "PyG SchNet", "pyg_dimenet++": "PyG DimeNet++",
}  # fmt: skip
# The case "models", in which each is beside the other implementation of the same model.
COMPARED = {
    "ours": None, "no_torsion": None, "no_angle": None, "dimenet++": "pyg_dimenet++", "dimenet": "pyg_dimenet",
    "schnet": "pyg_schnet", "physnet": None,
}  # fmt: skip
MODELS = {
    "ours": "SphereNet", "no_torsion": "SphereNet without φ", "no_angle": "SphereNet without (θ, φ)",
    "dimenet++": "DimeNet++", "dimenet": "DimeNet", "schnet": "SchNet", "physnet": "PhysNet",
}  # fmt: skip
CASES = {
    "build": "building the model", "qm9": "QM9, 32 molecules", "qm9-128": "QM9, 128 molecules",
    "qm9-512": "QM9, 512 molecules", "ethanol": "ethanol, 16 frames", "aspirin-1": "aspirin, 1 frame",
    "aspirin": "aspirin, 8 frames", "slab": "slab", "droplet": "droplet", "liquid": "liquid", "graph": "neighbors",
    "models": "all models, QM9, 32 molecules",
}  # fmt: skip
REPLAY, CAPTURED = "_replay", "_captured"  # behind a procedure's name: recorded as CUDA graph
Row = dict[str, str]


def environment(device: str) -> Row:
    """The columns that are the same in all rows of a run."""
    return {
        "device": device_name(device),
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
        "commit": commit(),
    }


def device_name(device: str) -> str:
    """What the maker calls it."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def commit() -> str:
    """The commit of this working tree, with "-dirty" if files differ from it.

    Outside of git, where only the files have been copied, what COMMIT in the environment says, or "unknown".
    """
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    elsewhere = os.environ.get("COMMIT", "unknown")
    try:
        process = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    except FileNotFoundError:
        return elsewhere
    return process.stdout.strip() if process.returncode == 0 else elsewhere


def file_name(row: Row, device: str) -> str:
    """`amd-epyc-2-threads.csv`; a GPU's name alone."""
    name = row["device"] if torch.device(device).type == "cuda" else f"{row['device']} {row['threads']} threads"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") + ".csv"


def read(path: Path) -> list[Row]:
    """All rows of a file. Raises ValueError if its columns are not COLUMNS."""
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    if reader.fieldnames != COLUMNS:
        raise ValueError(f"{path}: expected columns {COLUMNS}, got {reader.fieldnames}")
    return rows


def update(path: Path, rows: list[Row], order: tuple[str, ...]) -> None:
    """Write `rows` to a file, instead of the older rows of the same case and provider and beside all others.

    order: of the cases in the file.
    """
    renewed = {(row["case"], row["provider"]) for row in rows}
    kept = [row for row in read(path) if (row["case"], row["provider"]) not in renewed] if path.exists() else []
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(kept + rows, key=lambda row: order.index(row["case"])))


def heading(rows: list[Row]) -> str:
    """Device, threads, torch and commit of a result file."""
    commits = ", ".join(dict.fromkeys(row["commit"] for row in rows))
    versions = ", ".join(dict.fromkeys(row["torch"] for row in rows))
    threads = rows[0]["threads"] + (" thread" if rows[0]["threads"] == "1" else " threads")
    return f"{rows[0]['device']}, {threads}, torch {versions}, commit {commits}"
