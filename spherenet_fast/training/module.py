"""The Lightning module: losses, optimizer, learning rate and averaged weights."""

import time

import lightning.pytorch as pl
import numpy as np
import torch

from ..data.molecules import Batch
from .config import Config
from .metrics import ErrorSum, predicted, slope_errors
from .optimization.ema import WeightAverage
from .optimization.losses import MeanLoss, loss_parts, total_loss
from .optimization.optimizer import make_optimizer
from .optimization.schedule import learning_rate, progress
from .potential import Potential


class TrainingModule(pl.LightningModule):
    """Trains a `Potential` on errors divided by its scale.

    Validation uses the averaged weights. A checkpoint holds the present weights, their average (as the potential that
    `Potential.load` reads), the time used and the running sums of the log, so that a resumed run goes on exactly.

    Args:
        potential: what is trained, changed in place.
        config: of the run.
        max_steps: end of the run in optimizer steps, or None.
    """

    def __init__(self, potential: Potential, config: Config, max_steps: int | None):
        super().__init__()
        self.potential = potential
        self.config = config
        self.max_steps = max_steps
        self.average: WeightAverage | None = None
        self.train_errors, self.val_errors = ErrorSum.of(potential, scaled=True), ErrorSum.of(potential, scaled=True)
        self.train_loss = 0.0  # a sum over graphs, a tensor once there is a batch
        self.val_loss = MeanLoss()
        self.lr = 0.0
        self.lr_of_other_budget: float | None = None  # of the last step before a resume with another budget
        self._minutes_before = 0.0
        self._began: float | None = None
        self._saved_average: dict | None = None

    def minutes(self) -> float:
        """Minutes of training so far, those before a resume included."""
        return self._minutes_before + (0.0 if self._began is None else (time.monotonic() - self._began) / 60)

    def progress(self) -> float:
        """How much of the budget of steps and minutes is used, 0 to 1."""
        return progress(self.global_step, self.max_steps, self.minutes(), self.config.training.max_time)

    def clock(self) -> float:
        """How much of `max_time` is used; 0 where there is none."""
        max_time = self.config.training.max_time
        return 0.0 if max_time is None else self.minutes() / max_time

    def _errors(self, batch: Batch):
        """Errors over scale, in the dtype of the model: targets [B, T], forces of free atoms [n, 3] or None, and stress
        [b, 6], of structures that have a label, or None.

        Of a target without a label the error is NaN.
        """
        potential = self.potential
        dtype = batch.pos.dtype
        label = ((batch.y - potential.offset(batch, batch.num_graphs)) / potential.scale).to(dtype)
        energy, *slopes = predicted(potential.model if batch.forces is None else potential.recorded, batch)
        return energy - label, *slope_errors(batch, slopes, potential.scale.to(dtype))

    def _mirrored(self, batch: Batch, number: int) -> Batch:
        """Mirror images of some of the molecules, drawn from (seed, step) so that a resumed run draws the same.

        number: of the batch in its step, from 0.
        """
        draw = np.random.default_rng((self.config.training.seed, self.global_step, *([number] if number else [])))
        return batch.mirrored(torch.from_numpy(draw.random(batch.num_graphs) < 0.5).to(batch.pos.device))

    def training_step(self, batch: Batch, batch_idx: int):
        if self.config.training.augment_reflections:
            batch = self._mirrored(batch, batch_idx % self.config.training.accumulate)
        error, *slopes = self._errors(batch)
        loss = total_loss(self.config.loss, batch.of_known_targets(error), *slopes)
        self.train_errors.add(error, slopes[0], batch.known, slopes[1])
        self.train_loss = self.train_loss + loss.detach() * batch.num_graphs
        return loss

    def validation_step(self, batch: Batch, batch_idx: int):
        error, *slopes = self._errors(batch)
        self.val_errors.add(error, slopes[0], batch.known, slopes[1])
        self.val_loss.add(loss_parts(self.config.loss, batch.of_known_targets(error), *slopes))

    def take_errors(self, part: str) -> dict[str, float]:
        """Mean loss and errors since the last call ("train") or of the last validation ("val"), in real units.

        Of targets with a limit on their errors, the share within it, too.
        """
        errors = getattr(self, f"{part}_errors")
        if part == "val":
            loss = self.val_loss.take()
        else:
            loss, self.train_loss = float(self.train_loss) / errors.counts[0], 0.0
        means = {f"{part}_loss": loss}
        found = errors.means(self.potential.scale)
        means |= {f"{part}_mae_{name}": value for name, value in found.mae.items()}
        means |= {f"{part}_within_{name}": value for name, value in found.within.items()}
        errors.clear()
        return means

    def configure_optimizers(self):
        return make_optimizer(self.potential.model, self.config.optimizer)

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
        """One step at the learning rate of the moment, and its effect on the average."""
        step = self.global_step
        self.lr = learning_rate(self.config.optimizer, step, self.progress(), self.clock())
        for group in optimizer.param_groups:
            group["lr"] = self.lr
        optimizer.step(closure=optimizer_closure)
        if self.average is not None:
            self.average.update(step + 1)

    def on_train_start(self):
        decay = self.config.optimizer.ema_decay
        if decay is not None:
            self.average = WeightAverage(self.potential.model.named_parameters(), decay, self._saved_average)
        self._saved_average = None
        self._began = time.monotonic()

    def on_validation_epoch_start(self):
        if self.average is not None:
            self.average.swap()

    def on_validation_epoch_end(self):
        if self.average is not None:
            self.average.swap()

    def averaged_state(self) -> dict:
        """`Potential.state` with the averaged weights."""
        return self.potential.state(None if self.average is None else self.average.values)

    def on_save_checkpoint(self, checkpoint):
        checkpoint["potential"] = self.averaged_state()
        checkpoint["run"] = {
            "minutes": self.minutes(),
            "train_errors": self.train_errors.state(),
            "train_loss": self.train_loss,
        }

    def on_load_checkpoint(self, checkpoint):
        run = checkpoint["run"]
        self._minutes_before = run["minutes"]
        self.train_errors.load(run["train_errors"])
        self.train_loss = run["train_loss"]
        before, now = checkpoint["potential"]["config"]["training"], vars(self.config.training)
        if any(before[limit] != now[limit] for limit in ("max_epochs", "max_steps", "max_time")):
            self.lr_of_other_budget = checkpoint["optimizer_states"][0]["param_groups"][0]["lr"]
        names = dict(self.potential.model.named_parameters())
        self._saved_average = {name: checkpoint["potential"]["weights"][name] for name in names}
