"""The checkpoints that a run is resumed from: the newest one and the one before it."""

import os
import sys
from pathlib import Path

from lightning.pytorch.plugins.io import TorchCheckpointIO

from ..._files import PARTIAL, write_file
from ..checkpoint import check_state, read_checkpoint, serialized

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
# What a run writes before its first checkpoint.
_BEFORE_THE_FIRST = {"config.yaml", "split.npz", "metrics.csv", "tensorboard", "wandb", "learning_curve.png"}
# What a resume needs, none of it empty: Lightning passes over what is missing or empty without a word.
_PARTS = {
    "potential": dict, "run": dict, "state_dict": dict, "loops": dict, "optimizer_states": list, "callbacks": dict,
    "global_step": int,
}  # fmt: skip


class WholeCheckpoints(TorchCheckpointIO):
    """Lightning's checkpoints, written all or nothing; the last one stays as ``previous.ckpt``."""

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        write_file(path, serialized(checkpoint), keep=PREVIOUS)

    def load_checkpoint(self, path, map_location=None, weights_only=None):
        return read_checkpoint(path)


def newest_checkpoint(out: Path) -> tuple[dict, Path] | None:
    """The newest whole checkpoint of the run in `out` and its path; None if it was stopped before it wrote one.

    Where ``last.ckpt`` is missing or damaged, that is ``previous.ckpt``, and a line on standard error says so.

    Raises:
        FileNotFoundError: there is neither, and `out` is not the folder of a run that has just begun.
        ValueError: there are some, but damaged or not of a training run; the error is that of the newer one.
    """
    previous = (out / LAST).resolve().with_name(PREVIOUS)  # beside the file, should last.ckpt be a link
    try:
        return _run_checkpoint(out / LAST), out / LAST
    except (FileNotFoundError, ValueError) as error:
        if previous.exists():
            try:
                checkpoint = _run_checkpoint(previous)
            except ValueError:
                raise error from None
            print(f"{error}; going on from {PREVIOUS}, after step {checkpoint['global_step']}", file=sys.stderr)
            return checkpoint, previous
        if isinstance(error, FileNotFoundError) and _has_just_begun(out):
            return None
        raise


def make_last(path: Path, out: Path) -> None:
    """Make the checkpoint `path` the ``last.ckpt`` of the run in `out`: saving would replace it by a damaged one."""
    if path.name != LAST:
        os.replace(path, (out / LAST).resolve())


def _has_just_begun(out: Path) -> bool:
    if not out.is_dir():
        return False
    return all(path.name in _BEFORE_THE_FIRST or path.suffix == PARTIAL for path in out.iterdir())


def _run_checkpoint(path: Path) -> dict:
    """A checkpoint with all that a resume needs. Raises FileNotFoundError, ValueError."""
    checkpoint = read_checkpoint(path)
    missing = [name for name, kind in _PARTS.items() if not isinstance(checkpoint.get(name), kind)]
    missing = missing or [name for name in _PARTS if not checkpoint[name]]
    if not missing and "best" not in (checkpoint["callbacks"].get("RunControl") or ()):
        missing = ["callbacks"]
    if missing:
        raise ValueError(f"{path}: expected the checkpoint of a training run, got one without {', '.join(missing)}")
    try:
        check_state(checkpoint["potential"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return checkpoint
