"""A whole training run: data, Lightning trainer, resume, final test."""

import json
import math
import sys
from functools import partial
from pathlib import Path

import torch
import yaml

from .._files import FolderLock, remove_partial_files, write_file
from ..data import Molecules, Split, StreamedMolecules, read_split
from ..data.checks import check_parts
from ..models import find_model
from .callbacks.logs import check_loggers, plot_learning_curve
from .callbacks.saving import LAST, make_last, newest_checkpoint
from .callbacks.signals import Interrupted, StopSignals
from .checkpoint import read_checkpoint, stated
from .config import Config
from .config.files import config_from_dict, config_to_dict
from .config.paths import absolute_paths, moved_paths
from .distributed.processes import Processes
from .distributed.start import processes_of
from .metrics import error_table, evaluate, print_unseen_elements
from .optimization.schedule import shortcoming
from .potential import Potential
from .prepare import prepare_molecules, prepare_potential, prepare_split
from .trainer import eval_batch_size, fit

# What may differ between the parts of a resumed run; anything else would make it another run.
FREE_ON_RESUME = (
    "max_epochs",
    "max_steps",
    "max_time",
    "eval_batch_size",
    "log_every",
    "device",
    "devices",
    "num_nodes",
    "threads",
    "tensorboard",
    "wandb",
    "wandb_project",
    "index",
    "workers",
)


def train(config: Config, out, resume: bool = False) -> dict | None:
    """Train as `config` says, in the folder `out`.

    Written there: config.yaml, split.npz, metrics.csv, learning_curve.png, last.ckpt (for resuming), best.ckpt (for
    use), previous.ckpt (for resuming if last.ckpt is damaged), results.json (errors on the test molecules), and
    TensorBoard's files.

    Args:
        config: a checked config.
        out: a folder that does not exist or is empty, unless `resume`.
        resume: continue the run in `out`. Run with the same config the result is, on a CPU and without max_time, the
            same to the last bit as without the interruption; only the limits and the display may be changed, and
            the number of processes, if their batches together stay as large.

    Returns:
        {"mae": {name: error}, "rmse": {...}, "units": {...}, "step": n, "note": text} of the test molecules with the
        best averaged weights (empty errors without test molecules), or None if a signal stopped the run: see
        `train_to_the_end`. The note says that the training was too short to learn much; None where it was not.

    Raises:
        FileNotFoundError, ValueError: data or config are wrong (nothing is written), `out` is in use, or the checkpoint
            is damaged or belongs to another configuration.
        OSError: a file cannot be written.
        FloatingPointError: the loss stopped being finite.
    """
    try:
        return train_to_the_end(config, out, resume)
    except Interrupted:
        return None


def train_to_the_end(
    config: Config, out, resume: bool = False, read: Molecules | StreamedMolecules | None = None
) -> dict:
    """`train`, but raises `Interrupted` if Ctrl-C, SIGTERM, SIGUSR1, SIGUSR2 or SIGXCPU stopped the run, or if a
    process that reads data has ended.

    read: the data, where it has been read as config.data says.
    Of several processes (see `processes_of`) each returns the results.

    Raises, besides what `train` raises:
        ConnectionError: another process of the run has ended.
    """
    out, config = Path(out), absolute_paths(config)
    processes = processes_of(config.training)
    threads = torch.get_num_threads()
    torch.set_num_threads(config.training.threads or max(1, threads // processes.sharers))
    try:
        with processes.one_voice():
            return _train(config, out, resume, processes, read)
    finally:
        torch.set_num_threads(threads)


def _train(
    config: Config, out: Path, resume: bool, processes: Processes, read: Molecules | StreamedMolecules | None
) -> dict:
    def former() -> tuple[dict, Path] | None:
        check_loggers(config)
        found = _checkpoint_to_resume(config, out) if resume else None
        check_folder(out, resume)
        return found and ({name: found[0][name] for name in ("potential", "global_step")}, found[1])

    checkpoint, fresh = processes.first_does(former), not resume

    # The first process downloads what is missing, and makes the index of data that is read as it is needed.
    molecules = processes.first_before_others(
        lambda: prepare_molecules(config.data, config.loss.stress_weight > 0, read)
    )

    def prepared() -> tuple[str, Split, Potential]:
        device = training_device(config)
        drawn = out / "split.npz"
        resumed = not fresh and checkpoint is not None and drawn.is_file()
        split = read_split(drawn, len(molecules), molecules) if resumed else prepare_split(config.data, molecules)
        check_parts(molecules, split.val, split.test, config.data.forces)
        state = checkpoint[0]["potential"] if checkpoint else None
        return device, split, prepare_potential(config, molecules, split, state)

    device, split, potential = processes.all_do(prepared)
    if molecules.group is not None and config.data.split is None:
        parts = ", ".join(f"{len(part)} for {name}" for name, part in split._asdict().items())
        print(f"frames, drawn by whole relaxations: {parts}")

    units = potential.all_units()
    resume_step = None if checkpoint is None else checkpoint[0]["global_step"]
    try:
        with FolderLock() as lock:
            claim = partial(_claim, lock, config, out, split, molecules, checkpoint, fresh)
            fit(config, out, molecules, split, potential, device, resume_step, claim, processes)
    except Interrupted:
        if processes.is_first:
            plot_learning_curve(out / "metrics.csv", out / "learning_curve.png", units)
        raise
    processes.first_does(lambda: plot_learning_curve(out / "metrics.csv", out / "learning_curve.png", units))
    best = Potential.load(out / "best.ckpt", device=device)
    if len(split.test):
        print(f"testing the best averaged weights on {len(split.test)} molecules", flush=True)
    try:
        with StopSignals(at_once=True):
            errors = evaluate(best, molecules, split.test, eval_batch_size(config), processes)
    except Interrupted as stop:
        if processes.is_first:
            print(f"test stopped by {stop}; the same command with --resume takes it up", file=sys.stderr)
        raise

    def results() -> dict:
        last = read_checkpoint(out / LAST)
        step = last["global_step"]
        found = errors._asdict() | {"units": units, "step": step}
        found["note"] = shortcoming(config, step, last["run"]["minutes"])
        write_file(out / "results.json", (json.dumps(_known(found), indent=1) + "\n").encode())
        return found

    found = processes.first_does(results)
    if errors.mae:
        print(f"test set, {len(split.test)} molecules, best averaged weights:\n{error_table(best, errors)}")
        print_unseen_elements(best, molecules, split.test)
    return found


def _claim(
    lock: FolderLock,
    config: Config,
    out: Path,
    split: Split,
    molecules: Molecules | StreamedMolecules,
    checkpoint: tuple[dict, Path] | None,
    fresh: bool,
) -> None:
    """Make the folder `out` with config and split; ValueError if it is to be a `fresh` one and a run is there.

    While the lock holds, no other process can claim it. A folder that cannot be filled is left unclaimed.
    """
    out.mkdir(parents=True, exist_ok=True)
    if not lock.take(out):
        raise ValueError(f"--out: expected a folder that no other process trains in, got {out}")
    if fresh:
        try:
            (out / "config.yaml").touch(exist_ok=False)  # of several processes that come at once one succeeds
        except FileExistsError:
            raise _in_use(out) from None
    remove_partial_files(out)
    if checkpoint is not None:
        make_last(checkpoint[1], out)
    try:
        write_file(out / "config.yaml", yaml.safe_dump(config_to_dict(config), sort_keys=False).encode())
        split.save(out / "split.npz", molecules)
    except OSError:
        if fresh:
            (out / "config.yaml").unlink(missing_ok=True)
        raise


def _known(results):
    """`results` with None for what is NaN, errors of which there are no labels: JSON has no such number."""
    if isinstance(results, dict):
        return {name: _known(value) for name, value in results.items()}
    return None if isinstance(results, float) and math.isnan(results) else results


def check_folder(out: Path, resume: bool) -> None:
    """ValueError if `out` is a file, or a folder with something in it and nothing is to be resumed."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out: expected a folder, got the file {out}")
    if not resume and out.is_dir() and any(out.iterdir()):
        raise _in_use(out)


def _in_use(out: Path) -> ValueError:
    """What to raise for the folder `out` of a new run where something is already."""
    return ValueError(f"--out: expected a new folder, got {out}, which is in use; --resume would continue a run there")


def _checkpoint_to_resume(config: Config, out: Path) -> tuple[dict, Path] | None:
    """The newest whole checkpoint in `out` and its path, or None if the run had just begun; says so if not the last.

    Raises:
        FileNotFoundError, ValueError: there is none, or it is not of a run of `config`: the first difference is named.
    """
    found = newest_checkpoint(out)
    if found is None:
        print(f"{out}: no checkpoint was saved before the run ended; it starts afresh", file=sys.stderr)
        return None
    checkpoint, path = found
    try:
        former = checkpoint["potential"]["config"]
        former = former | {"model": stated(find_model(former["model"].get("name", "SphereNet")), former["model"])}
        former = former | {"optimizer": {"name": "adamw"} | former.get("optimizer", {})}  # where the run does not say
        before = config_to_dict(moved_paths(absolute_paths(config_from_dict(former)), out))
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected a config that this version knows: {error}") from error
    now = config_to_dict(config)
    if same := same_batches(before["training"], now["training"]):
        before["training"]["batch_size"] = now["training"]["batch_size"]
    for section, options in now.items():
        for name, value in options.items():
            was = before.get(section, {}).get(name)
            allowed = section in ("data", "training") and name in FREE_ON_RESUME
            free = allowed and (same or name not in ("devices", "num_nodes"))
            if was != value and not free:
                key = f"{section}.{name}"
                raise ValueError(f"--resume: expected {key} = {was!r} as in {path}, got {value!r}")
    return found


def same_batches(before: dict, now: dict) -> bool:
    """Whether two sections `training` make the same batches of all processes together, of any number of processes."""

    def total(options: dict) -> int:
        return options["batch_size"] * options["devices"] * options["num_nodes"]

    return before["max_edges"] is None and now["max_edges"] is None and total(before) == total(now)


def training_device(config: Config) -> str:
    """ "cpu" or "cuda". float64, which atomic energies and sums of energies need, is missing on Apple's GPUs."""
    wanted = config.training.device
    if wanted == "gpu" and not torch.cuda.is_available():
        raise ValueError("config key 'training.device': expected cpu or auto where PyTorch finds no GPU, got 'gpu'")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"
