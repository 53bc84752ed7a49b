"""Predictions over labels, and how errors are distributed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 60
SHOWN = 0.99  # of the errors; a few far ones would hide how the others are distributed


class Compared(NamedTuple):
    """One quantity: its name and unit, [n] labels and [n] predictions."""

    name: str
    unit: str
    label: np.ndarray
    prediction: np.ndarray


def draw_errors(quantities: Iterable[Compared]) -> Figure:
    """For each quantity predictions over labels (a parity plot), and a histogram of prediction minus label.

    Raises ValueError if one has no values.
    """
    # Not pyplot: it would choose a window system, and the figure is only ever a file.
    from matplotlib.figure import Figure

    quantities = list(quantities)
    if empty := [one.name for one in quantities if len(one.label) == 0]:
        raise ValueError(f"{empty[0]}: expected labels to draw predictions over, got none")
    figure = Figure(figsize=(9, 4 * len(quantities)), layout="constrained")
    for one, (parity, histogram) in zip(quantities, figure.subplots(len(quantities), 2, squeeze=False), strict=True):
        error = one.prediction - one.label
        ends = [min(one.label.min(), one.prediction.min()), max(one.label.max(), one.prediction.max())]
        parity.plot(ends, ends, color="black", lw=0.8)
        style = {"ms": 2 if len(error) > 500 else 4, "alpha": 0.3 if len(error) > 5000 else 0.6}
        parity.plot(one.label, one.prediction, ".", mew=0, rasterized=True, **style)
        parity.set(xlabel=f"{one.name}, label ({one.unit})", ylabel=f"{one.name}, prediction ({one.unit})")
        parity.set_aspect("equal", adjustable="datalim")
        reach = np.quantile(np.abs(error), SHOWN) or 1.0
        histogram.hist(error, bins=int(np.clip(len(error) // 20, 15, BINS)), range=(-reach, reach))
        histogram.axvline(0, color="black", lw=0.8)
        mae, rmse = np.abs(error).mean(), np.sqrt(np.square(error).mean())
        histogram.set(title=f"MAE {mae:.3g}, RMSE {rmse:.3g} {one.unit}", ylabel=f"of {len(error):,}")
        histogram.set_xlabel(f"error of {one.name} ({one.unit})")
    return figure
