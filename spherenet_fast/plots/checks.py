"""A picture of energies along lines and in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_curves(curves: Mapping[str, Sequence]) -> Figure:
    """A panel for each group of curves, named by its x axis; a curve has x [F] and energy [F] in meV."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * max(1, len(curves)), 3.6), layout="constrained")
    for axes, (label, group) in zip(figure.subplots(1, max(1, len(curves)), squeeze=False)[0], curves.items()):
        for curve in group:
            axes.plot(curve.x, curve.energy, lw=0.8)
        axes.set_xlabel(label)
        axes.set_ylabel("change of the energy (meV)")
        axes.grid(alpha=0.3)
    return figure
