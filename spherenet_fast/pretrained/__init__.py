"""Trained weights that come with the package, by name, and checkpoints of a hub: which file a word stands for.

Of each there are two files in this folder, NAME.ckpt and its card NAME.yaml; bench/training/pretrained.py writes both.

>>> from spherenet_fast import pretrained
>>> pretrained.names()
['md17-ethanol', 'md17-toluene', 'qm9-gap']
>>> pretrained.card("md17-ethanol")["errors"]["forces"]["unit"]
'kcal/mol/Ang'
"""

import hashlib
import re
from difflib import get_close_matches
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import Any

HUB = re.compile(r"hf:/+([^/@]+/[^/@]+)(?:@([^/]+))?/(.+)")  # one slash is what pathlib leaves of two


def names() -> list[str]:
    """The names of all weights in the package."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def card(name: str) -> dict[str, Any]:
    """What is known of the weights `name`: data, split, seed, budget, hardware, errors, units, limits, license.

    Raises ValueError for a name that is not among `names`.
    """
    import yaml

    if name not in names():
        raise ValueError(f"expected one of {', '.join(names())}, got {name!r}{_like(name)}")
    return yaml.safe_load((_folder() / f"{name}.yaml").read_text(encoding="utf-8"))


def is_name(checkpoint: str | PathLike[str]) -> bool:
    """Whether a checkpoint is given by one of `names`, or as hf://..., and not by a path."""
    words = Path(checkpoint).as_posix()
    return words in names() or words.startswith("hf:/")


def checkpoint_file(checkpoint: str | PathLike[str]) -> Path:
    """The file of a checkpoint.

    Args:
        checkpoint: one of `names`, whatever the current folder holds under it; or
            hf://OWNER/REPOSITORY/FILE or hf://OWNER/REPOSITORY@REVISION/FILE, which huggingface_hub downloads, once; or
            a path, which need not exist.

    Raises:
        ValueError: the file of that name in the package is damaged; what follows hf:// is of another form, or
            huggingface_hub is not installed.
        OSError: a download has failed.
    """
    words = Path(checkpoint).as_posix()
    if words in names():
        return _whole(words)
    return _downloaded(words) if words.startswith("hf:/") else Path(checkpoint)


def advice(checkpoint: str | PathLike[str]) -> str:
    """What to add to "no such checkpoint" where it could be meant as a name: the names, and one that is like it."""
    path = Path(checkpoint)
    if ":/" in path.as_posix():
        return ", nor of the form hf://OWNER/REPOSITORY/FILE"
    if path.suffix and not (path.suffix == ".ckpt" and _like(path.stem)):  # a file is meant
        return ""
    return f", nor pretrained weights ({', '.join(names())}) of that name{_like(path.stem)}"


def _like(name: str) -> str:
    close = get_close_matches(name, names(), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _folder() -> Path:
    return Path(str(files(__name__)))


def _whole(name: str) -> Path:
    """The file of a name, if it is the one that its card was written for."""
    path, expected = _folder() / f"{name}.ckpt", card(name)["sha256"]
    if not path.is_file():
        raise ValueError(f"{name}: expected the file {path}, got none; install the package again")
    came = hashlib.sha256(path.read_bytes()).hexdigest()
    if came != expected:
        raise ValueError(
            f"{name}: expected a file of SHA-256 {expected}, got {came}: {path} is damaged; install the package again"
        )
    return path


def _downloaded(words: str) -> Path:
    parts = HUB.fullmatch(words)
    if parts is None:
        raise ValueError(f"checkpoint: expected hf://OWNER/REPOSITORY/FILE, got {words.replace(':/', '://', 1)!r}")
    repository, revision, name = parts.groups()
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        advice = 'pip install "spherenet_fast[hub]"'
        raise ValueError(f"hf://{repository}: expected huggingface_hub to be installed, got none; {advice}") from error
    try:
        return Path(hf_hub_download(repository, name, revision=revision))
    except Exception as error:  # of the network, the hub and its client: whatever they raise is the answer
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise OSError(f"hf://{repository}/{name}: cannot be downloaded: {why}") from error
