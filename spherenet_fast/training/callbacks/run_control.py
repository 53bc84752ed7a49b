"""What happens between the steps: log, save, stop at the end of the budget or at a signal."""

import copy
import math
import time
from pathlib import Path

import lightning.pytorch as pl

from ..._files import write_file
from ..checkpoint import serialized
from ..module import TrainingModule
from .saving import LAST
from .signals import Interrupted, StopSignals


class RunControl(pl.Callback):
    """Writes metrics and checkpoints, and ends the run.

    ``last.ckpt`` (everything a resume needs) and ``best.ckpt`` (the averaged weights with the lowest validation loss,
    for use) are written after every validation; without validation both follow the last weights. The former holds the
    latter's contents, too: a resumed run begins by writing them, so that the two belong together whenever it ended.

    Args:
        out: folder of the run.
        val_every: steps between validations (or savings).
        validates: whether there are validation molecules.
        steps_per_epoch: for the column "epoch" of the metrics.
        signals: taken back from Lightning; what they say is `module.signal`, looked at after every step.
        report: called with (metrics, module) after every row of metrics, to show progress.

    Of several processes all pass here at the same steps, and the first one writes.
    """

    def __init__(
        self, out: Path, val_every: int, validates: bool, steps_per_epoch: float, signals: StopSignals, report
    ):
        self.out, self.val_every, self.validates = out, val_every, validates
        self.steps_per_epoch = steps_per_epoch
        self.signals = signals
        self.report = report
        self.started = False
        self.best = math.inf
        self._best_state: dict | None = None
        self._window_began = 0.0
        self._window_graphs = 0
        self._step = 0

    def state_dict(self):
        return {"best": self.best, "best_state": self._best_state}

    def load_state_dict(self, state_dict):
        self.best = state_dict["best"]
        self._best_state = state_dict.get("best_state")  # checkpoints of before do not have it

    def on_train_start(self, trainer, module: TrainingModule):
        self.started = True
        self.signals.listen()
        if module.signal is not None:
            raise Interrupted(module.signal, saved=False)
        if self._best_state is not None:
            self._write_best(module)
        trainer.should_stop = module.progress() >= 1  # a finished run was resumed
        self._window_began = time.monotonic()
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer, module: TrainingModule, outputs, batch, batch_idx):
        step = trainer.global_step
        self._window_graphs += module.graphs(batch)
        if step == self._step:  # gradients are accumulated; what is saved has none pending
            return
        self._step = step
        if step % module.config.training.log_every == 0:
            self._log_training(trainer, module)
        finished = module.progress() >= 1
        # Lightning validates once more when it is told to stop.
        trainer.should_stop = trainer.should_stop or finished
        if self.validates and (finished or step % self.val_every == 0):
            return
        if finished or module.signal is not None or step % self.val_every == 0:
            self._save(trainer, module)
            self._stop_if_told(module)

    def on_validation_end(self, trainer, module: TrainingModule):
        metrics = module.take_errors("val")
        self._log(trainer, module, metrics)
        self._save(trainer, module, metrics["val_loss"])
        self._stop_if_told(module)
        self._window_began = time.monotonic()  # validation does not count as training speed
        self._window_graphs = 0

    def _log_training(self, trainer, module):
        metrics = module.take_errors("train")
        now = time.monotonic()
        if self._window_graphs:
            metrics["molecules_per_s"] = self._window_graphs / (now - self._window_began)
        self._window_began, self._window_graphs = now, 0
        self._log(trainer, module, metrics | {"lr": module.lr})

    def _log(self, trainer, module, metrics: dict[str, float]):
        step = trainer.global_step
        # Errors of forces are NaN where no atom was free; whatever else is not finite shows in the loss.
        if not all(math.isfinite(value) for name, value in metrics.items() if name.endswith("_loss")):
            module.processes.all_do(lambda: self._diverged(step))
        row = {"epoch": step / self.steps_per_epoch, "minutes": module.minutes()} | metrics
        for logger in trainer.loggers:
            logger.log_metrics(row, step)
        self.report(row, module)

    def _diverged(self, step: int):
        saved = " last.ckpt holds the last saved state" if (self.out / LAST).is_file() else ""
        raise FloatingPointError(
            f"the loss stopped being finite before step {step}; a smaller optimizer.lr or an "
            f"optimizer.gradient_clip may help.{saved}"
        )

    def _save(self, trainer, module: TrainingModule, val_loss: float | None = None):
        """last.ckpt, and best.ckpt if `val_loss` is the lowest so far, or no weights were ever validated."""
        improved = self.best == math.inf if val_loss is None else val_loss < self.best
        if improved:
            self.best = self.best if val_loss is None else val_loss
            self._best_state = copy.deepcopy(module.averaged_state())
        for logger in trainer.loggers:
            logger.save()  # the rows of a step are on the disk before its checkpoint
        trainer.save_checkpoint(self.out / LAST)
        if improved:
            self._write_best(module)

    def _write_best(self, module: TrainingModule):
        if module.processes.is_first:
            write_file(self.out / "best.ckpt", serialized(self._best_state))

    def _stop_if_told(self, module: TrainingModule):
        if module.signal is not None:
            raise Interrupted(module.signal, saved=True)
