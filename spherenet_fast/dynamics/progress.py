"""How far a run is: a bar on a terminal, else a line now and then."""

import sys
import time

from tqdm import tqdm

QUIET_SECONDS = 30.0  # without a terminal, between two lines


class Progress:
    """Steps per second, nanoseconds per day, energy and temperature.

    Args:
        step, steps: the first one, and of the whole run. timestep: fs.
        structures: how many move, whose nanoseconds add up.
    """

    def __init__(self, step: int, steps: int, timestep: float, structures: int = 1):
        self.first = self.step = step
        self.timestep, self.structures = timestep, structures
        self.steps = steps
        self._began = self._updated = self._last_line = time.monotonic()
        layout = "{percentage:3.0f}% |{bar:24}| step {n_fmt} of {total_fmt}, {remaining} left, {desc}"
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(initial=step, total=steps, bar_format=layout, file=sys.stderr)

    def speed(self) -> str:
        """Since the run began or was resumed; "" before the first step."""
        per_second = (self.step - self.first) / max(self._updated - self._began, 1e-9)
        if not per_second:
            return ""
        text = f"{per_second:.3g} steps/s, {self.structures * ns_per_day(per_second, self.timestep):.3g} ns/day"
        return f"{text} of {self.structures} structures" if self.structures > 1 else text

    def update(self, step: int, energy: float, temperature: float) -> None:
        """energy: eV. temperature: K."""
        self.step, self._updated = step, time.monotonic()
        text = f"{self.speed()}, {energy:.4f} eV, {temperature:.0f} K"
        if self._bar is not None:
            self._bar.set_description_str(text, refresh=False)
            self._bar.update(step - self._bar.n)
        elif self._updated - self._last_line >= QUIET_SECONDS:
            self._last_line = self._updated
            print(f"step {step} of {self.steps}, {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the terminal on a fresh line."""
        if self._bar is not None:
            self._bar.close()


def ns_per_day(steps_per_second: float, timestep: float) -> float:
    """timestep: fs."""
    return steps_per_second * timestep * 1e-6 * 86_400
