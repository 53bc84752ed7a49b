"""The energy of a run of dynamics: how well it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def drift(time_ps: np.ndarray, energy: np.ndarray) -> float:
    """Slope of a straight line through the energies: meV/ps for eV; 0 for fewer than two times."""
    if len(time_ps) < 2:
        return 0.0
    return 1000 * float(np.polyfit(time_ps - time_ps[0], energy - energy[0], 1)[0])


def draw_energies(log: Mapping[str, np.ndarray], conserved: str | None = None) -> Figure:
    """Energies less those at the start, the temperature, and, for cells, pressure and volume, over time.

    Args:
        log: columns [F] as in the log of `spherenet-fast md`.
        conserved: name of the column that should be constant: a line is fitted through it.
    """
    # Not pyplot: it would choose a window system, and the figure is only ever a file.
    from matplotlib.figure import Figure

    time = log["time_ps"]
    cell = "pressure_GPa" in log
    figure = Figure(figsize=(7, 8.5 if cell else 5), layout="constrained")
    axes = figure.subplots(4 if cell else 2, 1, sharex=True)
    column = conserved or "total_eV"
    change = 1000 * (log[column] - log[column][0])
    label = {"total_eV": "total energy", "conserved_eV": "conserved energy"}[column]
    axes[0].plot(time, change, lw=1, label=label)
    if conserved and len(time) > 1:
        slope = drift(time, log[column])
        offset = change.mean() - slope * time.mean()
        axes[0].plot(time, offset + slope * time, lw=1, ls="--", color="black", label=f"drift {slope:.3g} meV/ps")
        axes[0].legend(frameon=False)
    axes[0].set_ylabel(f"change of the {label} (meV)")
    axes[1].plot(time, log["temperature_K"], lw=1)
    axes[1].set_ylabel("temperature (K)")
    if cell:
        axes[2].plot(time, log["pressure_GPa"], lw=1)
        axes[2].set_ylabel("pressure (GPa)")
        axes[3].plot(time, log["volume_A3"], lw=1)
        axes[3].set_ylabel("volume (Å³)")
    axes[-1].set_xlabel("time (ps)")
    for ax in axes:
        ax.grid(alpha=0.3)
    return figure
