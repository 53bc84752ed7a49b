"""The Lightning trainer of a run."""

import logging
import math
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from ..data import (
    EvenBatches,
    Molecules,
    ShuffledBatches,
    Split,
    StreamedMolecules,
    evaluation_loader,
    training_loader,
)
from ..data.loader import WorkerBatches
from ..models import MODELS
from .callbacks.display import Display
from .callbacks.logs import MetricsFile, end_loggers, other_loggers
from .callbacks.run_control import RunControl
from .callbacks.saving import LAST, WholeCheckpoints
from .callbacks.signals import Interrupted, StopSignals
from .callbacks.threads import FasterThreads
from .config import Config
from .distributed.processes import Processes, losses_named
from .module import TrainingModule
from .potential import Potential
from .prepare import count_edges


class Loaders(pl.LightningDataModule):
    """Lightning's view of the loaders; the stream of training batches starts at the step of the trainer.

    val: [V] the molecules that this process validates on. signals: told where a process that reads data has ended.
    """

    def __init__(
        self,
        molecules: Molecules | StreamedMolecules,
        val: Tensor,
        batches: ShuffledBatches,
        eval_batch_size: int,
        pin: bool,
        signals: StopSignals,
    ):
        super().__init__()
        self.molecules, self.val, self.batches = molecules, val, batches
        self.eval_batch_size, self.pin, self.signals = eval_batch_size, pin, signals
        self._made: list[Any] = []

    def train_dataloader(self):
        self.batches.start = self.trainer.global_step * self.trainer.accumulate_grad_batches
        return self._kept(training_loader(self.molecules, self.batches, self.pin, self._stop))

    def val_dataloader(self):
        return self._kept(evaluation_loader(self.molecules, self.val, self.eval_batch_size, self.pin, self._stop))

    def _kept(self, loader):
        self._made.append(loader)
        return loader

    def close(self) -> None:
        """End the processes that read data, whatever has ended the training."""
        for loader in self._made:
            if isinstance(loader, WorkerBatches):
                loader.close()

    def _stop(self, what: str) -> None:
        print(f"a process that reads data (data.workers) has ended: {what}; stopping after this step", file=sys.stderr)
        self.signals.notice(signal.SIGCHLD)


def fit(
    config: Config,
    out: Path,
    molecules: Molecules | StreamedMolecules,
    split: Split,
    potential: Potential,
    device: str,
    resume_step: int | None,
    claim: Callable[[], None],
    processes: Processes,
) -> None:
    """Train `potential` and write metrics and checkpoints in `out`.

    Args:
        device: "cpu" or "cuda".
        resume_step: the step of ``last.ckpt`` in `out`, from where to go on; None: start afresh.
        claim: makes the folder; called when nothing but training is left to fail, and before anything is written; by
            the first process alone.
        processes: that train together, all of them here.

    Raises:
        ConnectionError: another process has died.
        Interrupted: a signal stopped it.
        OSError: a file cannot be written.
        ValueError: ``last.ckpt`` does not fit.
    """
    options = config.training
    batches = processes.all_do(lambda: _batches(config, molecules, split, potential, processes))
    accumulate, per_epoch = options.accumulate, batches.steps_per_epoch / options.accumulate
    limits = [options.max_steps, None if options.max_epochs is None else math.ceil(options.max_epochs * per_epoch)]
    max_steps = min((limit for limit in limits if limit is not None), default=None)
    val_every = options.val_every or max(1, math.floor(per_epoch))

    signals = StopSignals(speaks=processes.is_first)
    module = TrainingModule(potential, config, max_steps, signals, processes)
    units = potential.all_units()
    display = Display(units) if processes.is_first else None
    report = display.report if display is not None else lambda metrics, module: None
    control = RunControl(out, val_every, len(split.val) > 0, per_epoch, signals, report)
    columns = ["epoch", "minutes", "lr"]
    values = ["loss", *(f"mae_{name}" for name in units)]
    values += [] if module.val_errors.limits is None else [f"within_{name}" for name in potential.names]
    columns += [f"{part}_{value}" for part in ("train", "val") for value in values]
    callbacks = [control] if display is None else [control, display]
    if device == "cpu" and options.threads is None and torch.get_num_threads() > 1:
        callbacks.append(FasterThreads(torch.get_num_threads()))
    with _quiet_lightning():
        trainer = pl.Trainer(
            accelerator=device, devices=options.devices, num_nodes=options.num_nodes,
            strategy=_strategy(processes, potential), plugins=[processes.environment(), WholeCheckpoints()],
            max_steps=-1, max_epochs=-1,
            val_check_interval=val_every * accumulate, check_val_every_n_epoch=None, num_sanity_val_steps=0,
            accumulate_grad_batches=accumulate,
            limit_val_batches=1.0 if len(split.val) else 0, gradient_clip_val=config.optimizer.gradient_clip,
            logger=False, log_every_n_steps=sys.maxsize, callbacks=callbacks, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False, inference_mode=False,
            default_root_dir=out,
        )  # fmt: skip
        # Before every batch Lightning asks the first process for SIGTERM, and a GPU waits; RunControl has the signals.
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None
        processes.first_does(claim)
        if processes.is_first:
            trainer.loggers = [MetricsFile(out / "metrics.csv", [*columns, "molecules_per_s"], resume_step)]
            trainer.loggers += other_loggers(config, out, resume_step)
        val = processes.share(split.val)
        loaders = Loaders(molecules, val, batches, eval_batch_size(config), device == "cuda", signals)
        try:
            with signals, losses_named():
                path = None if resume_step is None else out / LAST
                trainer.fit(module, datamodule=loaders, ckpt_path=path, weights_only=True)
                received = [number for number in processes.objects(signals.received) if number is not None]
                if received:  # after the last step was saved
                    raise Interrupted(received[0], saved=True)
        except Interrupted as stop:
            state = f"after step {trainer.global_step}" if stop.saved else "without saving"
            if processes.is_first:
                print(f"stopped {state} by {stop}; the same command with --resume continues", file=sys.stderr)
            raise
        except ConnectionError as error:
            saved = "goes on from the last save" if (out / LAST).exists() else "begins again: nothing was saved so far"
            text = f"{error}; the same command with --resume {saved}"
            raise ConnectionError(text) from error
        except (KeyError, IndexError, TypeError, AttributeError, RuntimeError) as error:
            if path is None or control.started:
                raise
            raise ValueError(f"{path}: expected a checkpoint that this version can restore: {error!r}") from error
        finally:
            loaders.close()
            end_loggers(trainer.loggers)
            if display is not None:
                display.close()


def eval_batch_size(config: Config) -> int:
    """Molecules per batch where no gradient by the weights is needed."""
    return config.training.eval_batch_size or 4 * config.training.batch_size


def _batches(
    config: Config, molecules: Molecules, split: Split, potential: Potential, processes: Processes
) -> ShuffledBatches:
    """This process' part of the batches of training. Raises ValueError if there are too few molecules, or edges."""
    options = config.training
    if 0 < len(split.val) < processes.count:
        each = f"{processes.count} validation molecules, one for each process"
        raise ValueError(f"data.val: expected none or at least {each}, got {len(split.val)}")
    part = {"rank": processes.rank, "count": processes.count}
    if options.max_edges is None:
        return ShuffledBatches(split.train, options.batch_size, options.seed, **part)
    edges = count_edges(potential.model, molecules, split.train, processes)
    return EvenBatches(split.train, edges, options.max_edges, options.batch_size, options.seed, **part)


def _strategy(processes: Processes, potential: Potential) -> DDPStrategy | str:
    """DDP where there are several processes. No buffers change; weights without a gradient cost a search every step."""
    if processes.count == 1:
        return "auto"
    uses_all_weights = type(potential.model) in MODELS.values()  # models of one's own need not
    return DDPStrategy(find_unused_parameters=not uses_all_weights, broadcast_buffers=False)


@contextmanager
def _quiet_lightning():
    """Without Lightning's notes on hardware, loaders and intervals, which this package has settled."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning.*")
            yield
    finally:
        logger.setLevel(level)
