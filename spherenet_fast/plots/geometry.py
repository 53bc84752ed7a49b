"""The picture of a bond's surroundings: molecule, distances and angles, torsions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .bond import Surroundings, places_around, surroundings

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.figure import Figure

SKETCHED = 20  # atoms: the nearest to j, and all neighbors
COLORS = ("#0b62a4", "#d95f02", "#1b9e77", "#9a5fb0", "#c2185b", "#7a6a00", "#3d8fb5", "#a0522d", "#4d4d4d", "#66a61e")


def draw_geometry(atoms: Atoms, bond: tuple[int, int] | None = None, cutoff: float | None = None) -> Figure:
    """Three panels around the bond j -> i: the molecule; distances and angles of j's neighbors; their torsions.

    Arguments and errors as of `surroundings`.
    """
    from matplotlib.figure import Figure

    seen = surroundings(atoms, bond, cutoff)
    symbols = [f"{symbol}{number}" for number, symbol in enumerate(atoms.get_chemical_symbols())]
    j, i = (symbols[atom] for atom in seen.bond)
    names = _names([symbols[atom] for atom in seen.neighbors], {j, i})
    figure = Figure(figsize=(15, 6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    _molecule(left, atoms, seen, names, (j, i))
    _distances_and_angles(middle, seen, names, (j, i))
    _torsions(right, seen, names, (j, i))
    for ax in (left, middle, right):
        ax.set_anchor("N")
    count = len(seen.neighbors)
    figure.suptitle(
        f"{atoms.get_chemical_formula()}: bond {j}→{i}, {seen.length:.3f} Å, and the {count} other "
        f"neighbor{'' if count == 1 else 's'} of {j} within {seen.cutoff:.2f} Å",
        fontsize=13,
    )
    return figure


def _names(symbols: list[str], bond: set[str]) -> list[str]:
    """With a letter where several neighbors are images of one atom, or images of an atom of the bond."""
    several = {symbol for symbol in symbols if symbols.count(symbol) > 1 or symbol in bond}
    return [
        f"{symbol}{chr(ord('a') + symbols[:n].count(symbol) % 26)}" if symbol in several else symbol
        for n, symbol in enumerate(symbols)
    ]


def _color(number: int) -> str:
    return COLORS[number % len(COLORS)]


def _ball(ax, place, number: int, radius: float, depth: float, text: str = "", edge: str = "black") -> None:
    """An atom in its element's color, with a name that can be read on it."""
    from ase.data.colors import jmol_colors
    from matplotlib.patches import Circle

    face = jmol_colors[number]
    ax.add_patch(
        Circle(place, radius, facecolor=face, edgecolor=edge, lw=1.5 if edge != "black" else 0.8, zorder=depth)
    )
    ink = "black" if face @ (0.3, 0.59, 0.11) > 0.45 else "white"
    ax.text(*place, text, ha="center", va="center", fontsize=9, color=ink, zorder=depth + 0.001)


def _molecule(ax, atoms: Atoms, seen: Surroundings, names: list[str], bond: tuple[str, str]) -> None:
    """A sketch, seen across the bond, which points to the right; colored rings mark the neighbors."""
    from ase.data import covalent_radii

    numbers, places = places_around(atoms, seen, max(seen.cutoff, seen.length + 2.5))
    nearest = np.argsort(np.linalg.norm(places, axis=1), kind="stable")[: max(SKETCHED, len(names) + 2)]
    numbers, places = numbers[nearest], places[nearest]
    end = np.array([seen.length, 0, 0])
    titles = {_place(place): (name, _color(n)) for n, (place, name) in enumerate(zip(seen.place, names, strict=True))}
    titles |= {_place(np.zeros(3)): (bond[0], "black"), _place(end): (bond[1], "black")}
    shown = [titles.get(_place(place), ("", "black")) for place in places]
    turned = places @ _clearest_turn(places[[bool(name) for name, _ in shown]]).T
    depth = 10 + turned[:, 2] / (1 + np.abs(turned[:, 2]).max())
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1)
    touching = distance < 1.2 * (covalent_radii[numbers][:, None] + covalent_radii[numbers])
    for one, other in zip(*np.nonzero(np.triu(touching, 1)), strict=True):
        line, behind = turned[[one, other]], min(depth[one], depth[other]) - 0.002
        ax.plot(line[:, 0], line[:, 1], color="0.6", lw=3, zorder=behind, solid_capstyle="round")
    for number, place, z, (name, color) in zip(numbers, turned, depth, shown, strict=True):
        _ball(ax, place[:2], number, 0.16 + 0.22 * covalent_radii[number], z, name, color)
    ax.set(aspect="equal", xlabel="Å", title=f"the atoms, {bond[0]}→{bond[1]} to the right")
    ax.margins(0.12)
    ax.spines[["top", "right"]].set_visible(False)


def _clearest_turn(places: np.ndarray) -> np.ndarray:
    """The turn [3, 3] about the first axis, in steps of 10 degrees, that leaves the places [n, 3] least on one another.

    What is seen are the first two coordinates.
    """
    turns = [
        np.array([[1, 0, 0], [0, math.cos(angle), -math.sin(angle)], [0, math.sin(angle), math.cos(angle)]])
        for angle in np.arange(36) * math.pi / 18
    ]
    one, other = np.triu_indices(len(places), 1)

    def gap(turn: np.ndarray) -> float:
        seen = (places @ turn.T)[:, :2]
        return np.linalg.norm(seen[one] - seen[other], axis=1).round(6).min()

    return max(turns, key=gap)


def _place(place: np.ndarray) -> tuple[float, ...]:
    """A key for a place."""
    return tuple(np.round(place, 4) + 0.0)


def _distances_and_angles(ax, seen: Surroundings, names: list[str], bond: tuple[str, str]) -> None:
    """Every neighbor at its true distance from j and its true angle from the bond, turned into one half-plane."""
    from matplotlib.patches import Arc

    reach = max([seen.length, *seen.distance]) * 1.05
    turn = np.linspace(0, math.pi, 91)
    for radius in np.arange(0.5, reach, 0.5 if reach < 3 else 1.0):
        ax.plot(radius * np.cos(turn), radius * np.sin(turn), color="0.85", lw=0.6, zorder=0)
    ax.annotate("", (seen.length, 0), (0, 0), arrowprops={"arrowstyle": "-|>", "lw": 2, "color": "black"}, zorder=3)
    for x, name in zip((0, seen.length), bond, strict=True):
        ax.text(x, -0.05 * reach, name, ha="center", va="top", fontsize=11, weight="bold")
    order = np.argsort(seen.theta, kind="stable")
    for rank, n in enumerate(order[::-1]):
        color = _color(n)
        x, y = seen.distance[n] * math.cos(seen.theta[n]), seen.distance[n] * math.sin(seen.theta[n])
        ax.plot((0, x), (0, y), color=color, lw=1.6, zorder=2)
        ax.plot(x, y, "o", color=color, ms=8, zorder=3)
        size = reach * (0.24 + 0.09 * (rank % 5))
        ax.add_patch(Arc((0, 0), size, size, theta2=math.degrees(seen.theta[n]), color=color, lw=1.2))
    lines = [(f"{names[n]}: d = {seen.distance[n]:.3f} Å, θ = {_degrees(seen.theta[n])}", n) for n in order]
    _legend(ax, lines)
    ax.set(aspect="equal", xlim=(-reach, reach), ylim=(-0.15 * reach, reach), xlabel="d cos θ (Å)", yticks=[])
    ax.set_title(f"distance d from {bond[0]}, angle θ from the bond")
    ax.spines[["left", "top", "right"]].set_visible(False)


def _torsions(ax, seen: Surroundings, names: list[str], bond: tuple[str, str]) -> None:
    """Seen along the bond from i to j: each torsion is an arc, counterclockwise to the next neighbor."""
    across = seen.place[:, 1:]
    reach = max([0.5, *np.linalg.norm(across, axis=1)])
    ring = 1.25 * reach
    ax.plot(0, 0, "o", color="black", ms=9, zorder=4)
    lines, starts = [], []
    for n, name in enumerate(names):
        color, (x, y) = _color(n), across[n]
        if math.isnan(seen.phi[n]):
            lines.append((f"{name}: on the axis, no torsion", n))
            continue
        start = math.atan2(y, x)
        level = sum(
            abs(math.remainder(start - other, 2 * math.pi)) < 0.1 for other in starts
        )  # those behind one another
        starts.append(start)
        outside, label = ring * (1 + 0.04 * level), ring * (1.12 + 0.15 * level)
        ax.plot((0, x), (0, y), color=color, lw=1.6, zorder=2)
        ax.plot((x, ring * math.cos(start)), (y, ring * math.sin(start)), color="0.7", lw=0.7, ls=":", zorder=1)
        ax.plot(x, y, "o", color=color, ms=8, zorder=3)
        place = label * math.cos(start), label * math.sin(start)
        ax.text(*place, name, ha="center", va="center", fontsize=10, color=color, weight="bold")
        _arc(ax, outside, start, seen.phi[n], color)
        to = "back to itself" if seen.next[n] is None else f"to {names[seen.next[n]]}"
        lines.append((f"{name}: φ = {_degrees(seen.phi[n])}, {to}", n))
    total = float(np.nansum(seen.phi))
    coincide = "" if abs(total - 2 * math.pi) < 1e-2 else ", as some azimuths coincide"
    _legend(ax, lines, f"sum {_degrees(total)}{coincide}" if total else "")
    ax.set(aspect="equal", xlim=(-1.3 * ring, 1.3 * ring), ylim=(-1.3 * ring, 1.3 * ring), xlabel="Å", yticks=[])
    ax.set_title(f"torsion φ about the bond, seen from {bond[1]} to {bond[0]}")
    ax.spines[["left", "top", "right"]].set_visible(False)


def _arc(ax, radius: float, start: float, angle: float, color: str) -> None:
    """An arc with an arrow at its end."""
    turn = start + np.linspace(0.03, 0.97, 60) * angle
    x, y = radius * np.cos(turn), radius * np.sin(turn)
    ax.plot(x, y, color=color, lw=2.2)
    head = {"arrowstyle": "-|>", "color": color, "lw": 2.2, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", (x[-1], y[-1]), (x[-2], y[-2]), arrowprops=head)


def _legend(ax, lines: list[tuple[str, int]], last: str = "") -> None:
    """Lines of text below a panel, in the colors of the neighbors."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=_color(n), marker="o", lw=1.6) for _, n in lines]
    texts = [text for text, _ in lines]
    if last:
        handles, texts = [*handles, Line2D([], [], lw=0)], [*texts, last]
    if texts:
        ax.legend(
            handles,
            texts,
            loc="upper center",
            bbox_to_anchor=(0.5, 0),
            borderaxespad=4.5,
            frameon=False,
            fontsize=9,
            ncols=2,
        )


def _degrees(angle: float) -> str:
    return f"{math.degrees(angle):.1f}°"
