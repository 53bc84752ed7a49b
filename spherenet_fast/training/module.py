"""The Lightning module: losses, optimizer, learning rate and averaged weights."""

import time

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from ..data.molecules import Batch
from .callbacks.signals import StopSignals
from .config import Config
from .distributed.processes import Processes
from .metrics import ErrorSum, label_counts, predicted, slope_errors
from .optimization.ema import WeightAverage
from .optimization.losses import MeanLoss, loss_parts, total_loss
from .optimization.optimizer import make_optimizer
from .optimization.schedule import learning_rate, progress
from .potential import Potential


class TrainingModule(pl.LightningModule):
    """Trains a `Potential` on errors divided by its scale.

    Validation uses the averaged weights. A checkpoint holds the present weights, their average (as the potential that
    `Potential.load` reads), the time used and the running sums of the log, so that a resumed run goes on exactly.

    Of several processes each has a part of every batch. Their losses are weighted so that the mean of the gradients,
    which DDP takes, is the gradient of the loss of the whole batch, however labels are spread over the parts. Before
    every batch they agree on all that decides about the run: numbers of labels, the clock of the first one, signals.

    Args:
        potential: what is trained, changed in place.
        config: of the run.
        max_steps: end of the run in optimizer steps, or None.
        signals: those that this process receives; None: none.
        processes: that train together; None: this one alone.
    """

    def __init__(
        self,
        potential: Potential,
        config: Config,
        max_steps: int | None,
        signals: StopSignals | None = None,
        processes: Processes | None = None,
    ):
        super().__init__()
        self.potential = potential
        self.config = config
        self.max_steps = max_steps
        self.signals, self.processes = signals or StopSignals(), processes or Processes()
        self._agreed: Tensor | None = None  # [processes, 6]: labels of three kinds, graphs, minutes, signal
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

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int):
        """Agree before each batch of training, while its labels are still where they can be counted at no cost."""
        if self.trainer.training and self.processes.count > 1:
            own = *label_counts(batch), batch.num_graphs, self.minutes(), self.signals.received or 0
            self._agreed = self.processes.gathered(list(own))
        return batch

    @property
    def signal(self) -> int | None:
        """The signal by which the run is to stop after this step."""
        if self.processes.count == 1:
            return self.signals.received
        return None if self._agreed is None else int(self._agreed[:, 5].max()) or None

    def graphs(self, batch: Batch) -> int:
        """Molecules in the batch of which `batch` is this process' part."""
        return batch.num_graphs if self._agreed is None else int(self._agreed[:, 3].sum())

    def _agreed_minutes(self) -> float:
        """`minutes` of the first process when the batch began."""
        if self.processes.count == 1:
            return self.minutes()
        return self._minutes_before if self._agreed is None else float(self._agreed[0, 4])

    def progress(self) -> float:
        """How much of the budget of steps and minutes is used, 0 to 1."""
        return progress(self.global_step, self.max_steps, self._agreed_minutes(), self.config.training.max_time)

    def clock(self) -> float:
        """How much of `max_time` is used; 0 where there is none."""
        max_time = self.config.training.max_time
        return 0.0 if max_time is None else self._agreed_minutes() / max_time

    def _errors(self, batch: Batch):
        """Errors over scale, in the dtype of the model: targets [B, T], forces of free atoms [n, 3] or None, and stress
        [b, 6], of structures that have a label, or None.

        Of a target without a label the error is NaN.
        """
        potential = self.potential
        dtype = batch.pos.dtype
        label = ((batch.y - potential.offset(batch, batch.num_graphs)) / potential.scale).to(dtype)
        energy, *slopes = predicted(potential.recorded, batch)
        return energy - label, *slope_errors(batch, slopes, potential.scale.to(dtype))

    def _mirrored(self, batch: Batch, number: int) -> Batch:
        """Mirror images of some of the molecules, drawn from (seed, step) so that a resumed run draws the same.

        number: of the batch in its step, from 0.
        """
        draw = np.random.default_rng((self.config.training.seed, self.global_step, *([number] if number else [])))
        first = 0 if self._agreed is None else int(self._agreed[: self.processes.rank, 3].sum())
        which = draw.random(self.graphs(batch))[first : first + batch.num_graphs] < 0.5
        return batch.mirrored(torch.from_numpy(which).to(batch.pos.device))

    def training_step(self, batch: Batch, batch_idx: int):
        if self.config.training.augment_reflections:
            batch = self._mirrored(batch, batch_idx % self.config.training.accumulate)
        error, *slopes = self._errors(batch)
        known = batch.of_known_targets(error)
        if self._agreed is None:
            loss, graphs = total_loss(self.config.loss, known, *slopes), batch.num_graphs
        else:
            every = self._agreed[:, :3].mean(0).tolist()
            parts = zip(loss_parts(self.config.loss, known, *slopes), every, strict=False)
            loss = sum(part * (count / (mean or 1.0)) for (part, count), mean in parts)
            graphs = self.graphs(batch) / self.processes.count
        self.train_errors.add(error, slopes[0], batch.known, slopes[1])
        self.train_loss = self.train_loss + loss.detach() * graphs
        return loss

    def backward(self, loss: torch.Tensor):
        # not by the positions as well, of which forces are derivatives
        loss.backward(inputs=[parameter for parameter in self.parameters() if parameter.requires_grad])

    def validation_step(self, batch: Batch, batch_idx: int):
        error, *slopes = self._errors(batch)
        self.val_errors.add(error, slopes[0], batch.known, slopes[1])
        self.val_loss.add(loss_parts(self.config.loss, batch.of_known_targets(error), *slopes))

    def take_errors(self, part: str) -> dict[str, float]:
        """Mean loss and errors since the last call ("train") or of the last validation ("val"), in real units.

        Of targets with a limit on their errors, the share within it, too.
        """
        errors, total = getattr(self, f"{part}_errors"), self.processes.sum
        errors.load(total(errors.state()))
        if part == "val":
            loss = self.val_loss.take(total)
        else:
            loss, self.train_loss = float(total([self.train_loss])[0]) / errors.counts[0], 0.0
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
        sums = {"train_errors": self.train_errors.state(), "train_loss": self.train_loss}
        checkpoint["run"] = {"minutes": self.minutes()} | self.processes.sum(sums)

    def on_load_checkpoint(self, checkpoint):
        run = checkpoint["run"]
        self._minutes_before = run["minutes"]
        if self.processes.is_first:  # whose sums stand for those of all
            self.train_errors.load(run["train_errors"])
            self.train_loss = run["train_loss"]
        before, now = checkpoint["potential"]["config"]["training"], vars(self.config.training)
        if any(before[limit] != now[limit] for limit in ("max_epochs", "max_steps", "max_time")):
            self.lr_of_other_budget = checkpoint["optimizer_states"][0]["param_groups"][0]["lr"]
        names = dict(self.potential.model.named_parameters())
        self._saved_average = {name: checkpoint["potential"]["weights"][name] for name in names}
