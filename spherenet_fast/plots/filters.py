"""Polar maps of learned torsion filters (the paper's Figures 6 and 8)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..models.spherenet import SphereNet
from ..ops import reference

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TORSIONS = tuple(k * math.pi / 4 for k in range(8))
NAMES = ("0", "π/4", "π/2", "3π/4", "π", "5π/4", "3π/2", "7π/4")


def torsion_filters(model: SphereNet, block: int, distance: Tensor, theta: Tensor, phi: Tensor) -> Tensor:
    """What a message k -> j is multiplied by, channel by channel, for its torsion about the edge j -> i.

    t[c] = sum_p torsion_expand[c, p] sum_lmn torsion_weight[p, lm, n] R_ln(d) Y_lm(theta, phi): Eq. (4) of the paper
    after the two weights of an interaction block, the filter that `gated_sum` applies.

    Args:
        model: with torsions.
        block: number of the interaction block, from 0.
        distance: [D], of k from j, in the unit of the model's cutoff. theta: [A] angle k-j-i, phi: [F] torsion; radian.

    Returns:
        [F, A, D, C], C the model's int_emb_size.

    Raises:
        ValueError: the model has no torsions, or no such block.
    """
    weights = _torsion_weights(model, block)
    with torch.no_grad():
        _, radial = model.emb(distance.to(weights[0].dtype), reference)
        shape = (len(phi), len(theta), len(distance))
        angles = phi[:, None, None].expand(shape).flatten(), theta[:, None].expand(shape).flatten()
        torsion, angle = (value.to(weights[0].dtype) for value in angles)
        sine = angle.sin()
        harmonics = reference.spherical_harmonics(
            angle.cos(), sine * torsion.cos(), sine * torsion.sin(), radial.shape[1]
        )
        every_radial = radial.expand(*shape[:2], *radial.shape).flatten(0, 2)
        filters = reference.torsion_filter(every_radial, harmonics, *weights, model.hparams["basis"])
    return filters.reshape(*shape, -1)


def _torsion_weights(model, block: int) -> tuple[Tensor, Tensor]:
    if not isinstance(model, SphereNet):
        raise ValueError(
            f"checkpoint: expected a SphereNet, got a {type(model).__name__}, which has no torsion filters"
        )
    if model.torsion is None:
        raise ValueError("checkpoint: expected a SphereNet with torsions, got one without")
    if not 0 <= block < len(model.update_es):
        raise ValueError(f"--block: expected 0 to {len(model.update_es) - 1}, got {block}")
    update = model.update_es[block]
    return update.lin_t1.weight, update.lin_t2.weight


def draw_filters(
    model: SphereNet, block: int = 0, channels: Sequence[int] | None = None, points: int = 91, shown: int = 6
) -> Figure:
    """Half-disks of filter values over distance (radius) and angle theta: a row for a channel, a column for a torsion.

    Every row has its own scale, symmetric about 0.

    Args:
        model, block: as in `torsion_filters`.
        channels: numbers of the filters; None: the `shown` ones that depend most on the torsion.
        points: of the grid, along distance and angle each.

    Raises:
        ValueError: what `torsion_filters` raises, or there is no such channel.
    """
    from matplotlib.figure import Figure

    weights = _torsion_weights(model, block)
    cutoff, count = float(model.hparams["cutoff"]), len(weights[1])
    wrong = [channel for channel in channels or () if not 0 <= channel < count]
    if wrong:
        raise ValueError(f"--channel: expected 0 to {count - 1}, got {wrong[0]}")
    distance = torch.linspace(0, cutoff, points + 1)[1:]
    theta = torch.linspace(0, math.pi, points)
    values = torsion_filters(model, block, distance, theta, torch.tensor(TORSIONS)).double().cpu()
    if not channels:
        channels = most_varied(values, distance, theta, shown)
    rows = len(channels)
    figure = Figure(figsize=(16, 1.12 * rows + 1.1), layout="constrained")
    axes = figure.subplots(rows, len(TORSIONS), squeeze=False, sharex=True, sharey=True)
    # j at the origin, i on the right
    along, across = ((distance * turn[:, None]).numpy() for turn in (theta.cos(), theta.sin()))
    for row, channel in zip(axes, channels, strict=True):
        limit = _limit(values[..., channel], distance)
        style = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit, "shading": "gouraud", "rasterized": True}
        for ax, shown_here in zip(row, values[..., channel].numpy(), strict=True):
            mesh = ax.pcolormesh(along, across, shown_here, **style)
            _half_disk(ax, cutoff)
        row[0].set_ylabel(f"filter {channel}", fontsize=11)
        bar = figure.colorbar(mesh, ax=list(row), fraction=0.01, pad=0.005, extend="both")
        bar.set_label("factor", fontsize=8)
        bar.ax.tick_params(labelsize=8)
    for ax, name in zip(axes[0], NAMES, strict=True):
        ax.set_title(f"φ = {name}", fontsize=12)
        for angle, side in ((45, "left"), (135, "right")):
            place = [1.03 * cutoff * math.cos(math.radians(angle)), 1.03 * cutoff * math.sin(math.radians(angle))]
            ax.text(*place, f"{angle}°", fontsize=7, ha=side, va="bottom").set_in_layout(False)
    for ax in axes[-1]:
        ax.set_xlabel("d cos θ (Å)", fontsize=8)
    figure.suptitle(
        f"Torsion filters of interaction block {block}: what a message k→j is multiplied by, over k's distance d from "
        "j and angle θ from the bond j→i, which points right",
        fontsize=12,
    )
    return figure


def most_varied(values: Tensor, distance: Tensor, theta: Tensor, shown: int) -> list[int]:
    """The channels [C] whose variance over torsions is the largest part of their mean square over all of space.

    values [F, A, D, C]; distance [D], theta [A]. Returns `shown` numbers, ascending.
    """
    volume = (theta.sin()[:, None] * distance.square()).to(values)[..., None]
    varied = (values.var(0, correction=0) * volume).sum((0, 1)) / (values.square().mean(0) * volume).sum((0, 1))
    return sorted(varied.topk(min(shown, len(varied))).indices.tolist())


def _limit(maps: Tensor, distance: Tensor) -> float:
    """The end of the color scale: the largest value where atoms may be, 0.9 Å and more from each other."""
    apart = distance >= min(0.9, float(distance[-1]) / 2)
    return max(float(maps[..., apart].abs().max()), 1e-12)


def _half_disk(ax, cutoff: float) -> None:
    """Rings at every Å, rays at every 45 degrees, and room for them alone."""
    turn = np.linspace(0, math.pi, 91)
    for radius in [*range(1, math.ceil(cutoff)), cutoff]:
        line = {"lw": 0.8} if radius == cutoff else {"lw": 0.3, "alpha": 0.5}
        ax.plot(radius * np.cos(turn), radius * np.sin(turn), color="black", **line)
    for angle in (0.25, 0.5, 0.75):
        end = cutoff * math.cos(math.pi * angle), cutoff * math.sin(math.pi * angle)
        ax.plot((0, end[0]), (0, end[1]), color="black", lw=0.3, alpha=0.5)
    ax.set(aspect="equal", xlim=(-cutoff, cutoff), ylim=(0, 1.02 * cutoff), yticks=[])
    ax.spines[["left", "right", "top"]].set_visible(False)
    ax.tick_params(labelsize=7)
