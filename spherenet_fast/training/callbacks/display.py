"""Progress on the terminal: the first step, then a bar where there is one, else lines after validations and between."""

import sys
import time

import lightning.pytorch as pl
from tqdm import tqdm

from ..module import TrainingModule


class Display(pl.Callback):
    """Shows how far a run is, its loss, its errors in real units, and molecules per second.

    After the first step, a callback of Lightning's, it says how many to expect.

    Args:
        units: {name of target or "forces": unit}.
        quiet_seconds: without a terminal, least time between lines of training metrics.
    """

    def __init__(self, units: dict[str, str | None], quiet_seconds: float = 30.0):
        self.units = units
        self.quiet_seconds = quiet_seconds
        self._last_line = time.monotonic()
        self._first_step = 0
        self._minutes_before = 0.0
        self._announced = False
        layout = "{percentage:3.0f}% |{bar:24}| {desc}"
        self._bar = tqdm(total=1.0, bar_format=layout, file=sys.stderr) if sys.stderr.isatty() else None

    def on_train_start(self, trainer, module: TrainingModule):
        self._first_step, self._minutes_before = trainer.global_step, module.minutes()

    def on_train_batch_end(self, trainer, module: TrainingModule, outputs, batch, batch_idx):
        if self._announced or trainer.global_step == self._first_step:
            return
        self._announced = True
        seconds = 60 * (module.minutes() - self._minutes_before)
        self._write(f"step {self._steps(module)}: the first one took {seconds:.2g} s")
        before, options = module.lr_of_other_budget, module.config.optimizer
        if before is not None and module.lr > before and module.global_step > options.warmup_steps:
            change = f"from {before:.2g} to {module.lr:.2g}"
            self._write(f"the budget has changed: the learning rate goes up again, {change}")

    def _steps(self, module: TrainingModule) -> str:
        """ "20 of 4000", or of about so many as the rest of the time allows at the pace since the start."""
        step, max_time = module.global_step, module.config.training.max_time
        limits = [] if module.max_steps is None else [(module.max_steps, "")]
        minutes = module.minutes() - self._minutes_before
        if max_time is not None and minutes > 0:
            pace = (step - self._first_step) / minutes
            limits.append((self._first_step + round(pace * (max_time - self._minutes_before)), "about "))
        total, about = min(limits, default=(step, ""))
        return f"{step} of {about}{max(total, step)}"

    def _write(self, text: str) -> None:
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def report(self, metrics: dict[str, float], module: TrainingModule) -> None:
        """Show a row of metrics."""
        validation = "val_loss" in metrics
        text = self._text(metrics, module, "val" if validation else "train")
        if self._bar is not None:
            if validation:
                self._write(text)
            else:
                self._bar.n = module.progress()
                self._bar.set_description_str(text)
        elif validation or time.monotonic() - self._last_line >= self.quiet_seconds:
            self._last_line = time.monotonic()
            self._write(text)

    def close(self) -> None:
        """Leave the terminal on a fresh line."""
        if self._bar is not None:
            self._bar.close()

    def _text(self, metrics, module, part: str) -> str:
        pieces = [
            f"{'validation' if part == 'val' else 'training'}: step {self._steps(module)}",
            f"epoch {metrics['epoch']:.1f}",
            f"{metrics['minutes']:.1f} min",
            f"loss {metrics[f'{part}_loss']:.4g}",
        ]
        shown = [name for name in self.units if f"{part}_mae_{name}" in metrics]
        for name in shown[:4]:
            unit = f" {self.units[name]}" if self.units[name] else ""
            share = metrics.get(f"{part}_within_{name}")
            share = "" if share is None else f" ({100 * share:.1f} % within the limit)"
            pieces.append(f"{name} {metrics[f'{part}_mae_{name}']:.4g}{unit}{share}")
        if len(shown) > 4:
            pieces.append(f"and {len(shown) - 4} more targets")
        if "molecules_per_s" in metrics:
            pieces.append(f"{metrics['molecules_per_s']:.0f} molecules/s")
        return ", ".join(pieces)
