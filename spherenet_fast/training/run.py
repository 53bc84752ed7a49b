"""A whole training run: data, Lightning trainer, Ctrl-C, resume, final test."""

import json
import os
from functools import partial
from pathlib import Path

import torch
import yaml

from ..data import Split
from .accuracy import error_table, evaluate, print_unseen_elements
from .config import Config
from .config_files import config_from_dict, config_to_dict
from .logs import plot_learning_curve
from .potential import Potential, read_checkpoint
from .prepare import prepare_molecules, prepare_potential, prepare_split
from .schedule import shortcoming
from .trainer import eval_batch_size, fit

# What may differ between the parts of a resumed run; anything else would make it another run.
FREE_ON_RESUME = (
    "max_epochs",
    "max_steps",
    "max_time",
    "eval_batch_size",
    "log_every",
    "device",
    "threads",
    "tensorboard",
)


def train(config: Config, out, resume: bool = False) -> dict | None:
    """Train as `config` says, in the folder `out`.

    Written there: config.yaml, split.npz, metrics.csv, learning_curve.png, last.ckpt (for resuming), best.ckpt (for
    use), results.json (errors on the test molecules), and TensorBoard's files.

    Args:
        config: a checked config.
        out: a folder that does not exist or is empty, unless `resume`.
        resume: continue the run in `out`. Run with the same config the result is, on a CPU and without max_time, the
            same to the last bit as without the interruption; only the limits and the display may be changed.

    Returns:
        {"mae": {name: error}, "rmse": {...}, "units": {...}, "step": n, "note": text} of the test molecules with the
        best averaged weights (empty errors without test molecules), or None if the user stopped the run. The note says
        that the training was too short to learn much; None where it was not.

    Raises:
        FileNotFoundError, ValueError: data or config are wrong (nothing is written), `out` is in use, or the checkpoint
            is damaged or belongs to another configuration.
        FloatingPointError: the loss stopped being finite.
    """
    out = Path(out)
    checkpoint = _checkpoint_to_resume(config, out) if resume else None
    if not resume and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise _in_use(out)
    threads = torch.get_num_threads()
    torch.set_num_threads(config.training.threads or threads)
    try:
        return _train(config, out, checkpoint)
    finally:
        torch.set_num_threads(threads)


def _train(config: Config, out: Path, checkpoint: dict | None) -> dict | None:
    device = _device(config.training.device)
    molecules = prepare_molecules(config.data)
    split = prepare_split(config.data, molecules)
    potential = prepare_potential(config, molecules, split)
    if molecules.group is not None and config.data.split is None:
        parts = ", ".join(f"{len(part)} for {name}" for name, part in split._asdict().items())
        print(f"frames, drawn by whole relaxations: {parts}")

    units = potential.all_units()
    resume_step = None if checkpoint is None else checkpoint["global_step"]
    claim = partial(_claim, config, out, split, fresh=checkpoint is None)
    done = fit(config, out, molecules, split, potential, device, resume_step, claim)
    plot_learning_curve(out / "metrics.csv", out / "learning_curve.png", units)
    if not done:
        return None
    best = Potential.load(out / "best.ckpt", device=device)
    errors = evaluate(best, molecules, split.test, eval_batch_size(config))
    last = read_checkpoint(out / "last.ckpt")
    step = last["global_step"]
    results = errors._asdict() | {"units": units, "step": step}
    results["note"] = shortcoming(config, step, last["run"]["minutes"])
    _write_text(out / "results.json", json.dumps(results, indent=1) + "\n")
    if errors.mae:
        print(f"test set, {len(split.test)} molecules, best averaged weights:\n{error_table(best, errors)}")
        print_unseen_elements(best, molecules, split.test)
    return results


def _claim(config: Config, out: Path, split: Split, fresh: bool) -> None:
    """Make the folder `out` with config and split; ValueError if it is to be a `fresh` one and a run is there."""
    out.mkdir(parents=True, exist_ok=True)
    if fresh:
        try:
            (out / "config.yaml").touch(exist_ok=False)  # of several processes that come at once one succeeds
        except FileExistsError:
            raise _in_use(out) from None
    (out / "config.yaml").write_text(yaml.safe_dump(config_to_dict(config), sort_keys=False))
    split.save(out / "split.npz")


def _in_use(out: Path) -> ValueError:
    rest = ", without a checkpoint to resume from: remove it or choose another"
    if (out / "last.ckpt").is_file():
        rest = "; --resume would continue its run"
    return ValueError(f"--out: expected a new folder, got {out}, which is in use{rest}")


def _checkpoint_to_resume(config: Config, out: Path) -> dict:
    """The last checkpoint in `out`, if it belongs to `config`; else ValueError with the first difference."""
    checkpoint = read_checkpoint(out / "last.ckpt")
    if "potential" not in checkpoint or "run" not in checkpoint:
        raise ValueError(f"{out / 'last.ckpt'}: expected the checkpoint of a training run, got another file")
    before, now = (config_to_dict(c) for c in (config_from_dict(checkpoint["potential"]["config"]), config))
    for section, options in now.items():
        for name, value in options.items():
            was = before.get(section, {}).get(name)
            if was != value and not (section == "training" and name in FREE_ON_RESUME):
                key = f"{section}.{name}"
                raise ValueError(f"--resume: expected {key} = {was!r} as in {out / 'last.ckpt'}, got {value!r}")
    return checkpoint


def _device(wanted: str) -> str:
    """ "cpu" or "cuda". float64, which references and sums of energies need, is missing on Apple's GPUs."""
    if wanted == "gpu" and not torch.cuda.is_available():
        raise ValueError("config key 'training.device': expected cpu or auto where PyTorch finds no GPU, got 'gpu'")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def _write_text(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    os.replace(partial, path)
