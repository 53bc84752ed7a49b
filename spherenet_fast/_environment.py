"""What this package runs on: versions, platform, the compiled library, devices."""

import os
import platform
import re
from importlib import metadata
from pathlib import Path

import torch

from . import _library


def facts() -> dict[str, str]:
    """What a report of a bug needs apart from the library, each as a line of text under its name."""
    cuda = torch.version.cuda
    return {
        "torch": f"{torch.__version__}, {f'CUDA {cuda}' if cuda else 'not a CUDA build'}",
        "Python": platform.python_version(),
        "packages": ", ".join(f"{name} {version}" for name, version in packages(_requirements()).items()) or "unknown",
        "platform": platform.platform(),
        "processor": f"{processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads in use",
        "devices": "; ".join(map(device_text, devices())),
    }


def library_facts() -> dict[str, str]:
    """The same of the compiled library. Raises ImportError or OSError, if it does not load."""
    _library.load()
    chosen = os.environ.get("SPHERENET_FAST_CPU")
    return {
        "library": str(_library.loaded_path()),
        "CPU kernels": _library.cpu_instruction_set() + (f" (SPHERENET_FAST_CPU={chosen})" if chosen else ""),
        "CUDA kernels": _library.cuda_architectures(),
    }


def processor() -> str:
    """What its maker calls it, or else its architecture."""
    found = re.search(r"model name\s*:\s*(.+)", cpuinfo())
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def cpuinfo() -> str:
    """What Linux says of the processors; "" elsewhere."""
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""


def devices() -> list[torch.device]:
    """The CPU and all GPUs that torch sees."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [torch.device("cpu"), *(torch.device("cuda", number) for number in range(count))]


def device_text(device: torch.device) -> str:
    """The device, and the name and compute capability of a GPU."""
    if device.type == "cpu":
        return "cpu"
    major, minor = torch.cuda.get_device_capability(device)
    return f"{device} {torch.cuda.get_device_name(device)}, compute capability {major}.{minor}"


def packages(requirements: list[str]) -> dict[str, str]:
    """Versions by name of those required packages that are installed, torch and this one left out.

    Args:
        requirements: as in a package's metadata, such as `lmdb>=1; extra == "test"`.
    """
    names = dict.fromkeys(re.match(r"[\w.-]+", requirement)[0] for requirement in requirements)
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {name: version for name, version in found.items() if name not in ("torch", "spherenet_fast")}


def _requirements() -> list[str]:
    """Those of this package and of its extras; none known in a clone that is not installed."""
    try:
        return metadata.requires("spherenet_fast") or []
    except metadata.PackageNotFoundError:
        return []
