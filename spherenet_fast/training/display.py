"""Progress on the terminal: a bar where there is one, else a line after every validation and now and then."""

import sys
import time

from tqdm import tqdm

from .module import TrainingModule


class Display:
    """Shows how far a run is, its loss, its errors in real units, and molecules per second.

    Args:
        units: {name of target or "forces": unit}.
        quiet_seconds: without a terminal, least time between lines of training metrics.
    """

    def __init__(self, units: dict[str, str | None], quiet_seconds: float = 30.0):
        self.units = units
        self.quiet_seconds = quiet_seconds
        self._last_line = time.monotonic()
        layout = "{percentage:3.0f}% |{bar:24}| {desc}"
        self._bar = tqdm(total=1.0, bar_format=layout, file=sys.stderr) if sys.stderr.isatty() else None

    def report(self, metrics: dict[str, float], module: TrainingModule) -> None:
        """Show a row of metrics."""
        validation = "val_loss" in metrics
        text = self._text(metrics, module, "val" if validation else "train")
        if self._bar is not None:
            if validation:
                self._bar.write(text, file=sys.stderr)
            else:
                self._bar.n = module.progress()
                self._bar.set_description_str(text)
        elif validation or time.monotonic() - self._last_line >= self.quiet_seconds:
            self._last_line = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the terminal on a fresh line."""
        if self._bar is not None:
            self._bar.close()

    def _text(self, metrics, module, part: str) -> str:
        pieces = [
            f"{'validation' if part == 'val' else 'training'}: step {module.global_step}",
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
