"""Where and on what numbers are measured."""

import os
import re
import subprocess
from pathlib import Path

import torch

from bench.tables import Row
from spherenet_fast._environment import cpuinfo, processor

# Of servers: vendor, family, models. A virtual machine may call all of a maker's processors the same.
GENERATIONS = {
    ("AuthenticAMD", 23, range(48, 64)): "Zen 2", ("AuthenticAMD", 25, range(0, 16)): "Zen 3",
    ("AuthenticAMD", 25, range(16, 32)): "Zen 4", ("AuthenticAMD", 25, range(160, 176)): "Zen 4",
    ("AuthenticAMD", 26, range(0, 32)): "Zen 5", ("GenuineIntel", 6, range(85, 86)): "Skylake",
    ("GenuineIntel", 6, range(106, 107)): "Ice Lake", ("GenuineIntel", 6, range(143, 144)): "Sapphire Rapids",
    ("GenuineIntel", 6, range(173, 174)): "Granite Rapids", ("GenuineIntel", 6, range(207, 208)): "Emerald Rapids",
}  # fmt: skip


def environment(device: str) -> Row:
    """The columns that are the same in all rows of a run."""
    return {
        "device": device_name(device),
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
        "commit": commit(),
    }


def device_name(device: str) -> str:
    """What the maker calls it; of a server's processor brand and generation, `AMD EPYC (Zen 3)`."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return server_name(cpuinfo()) or processor()


def server_name(text: str) -> str | None:
    """Of a processor described as in `cpuinfo`; None where it is no EPYC or Xeon, or of no known generation."""
    found = {key: re.search(rf"^{key}\s*:\s*(.+)$", text, re.M) for key in ("vendor_id", "cpu family", "model")}
    brand = re.search(r"^model name\s*:.*\b(EPYC|Xeon)\b", text, re.M | re.I)
    if brand is None or None in found.values():
        return None
    vendor, family, model = found["vendor_id"][1], int(found["cpu family"][1]), int(found["model"][1])
    maker = {"AuthenticAMD": "AMD EPYC", "GenuineIntel": "Intel Xeon"}.get(vendor)
    names = [name for key, name in GENERATIONS.items() if key[:2] == (vendor, family) and model in key[2]]
    return f"{maker} ({names[0]})" if names else None


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
