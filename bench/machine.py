"""Where and on what numbers are measured."""

import os
import subprocess
from pathlib import Path

import torch

from bench.tables import Row
from spherenet_fast._environment import processor


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
    return processor()


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
