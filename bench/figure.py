"""One figure of a result file: the procedures on molecules, and how time and memory grow with a liquid."""

from pathlib import Path

import matplotlib
from table import CASES, REPLAY, TITLES, Row, heading

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  after the choice of a backend without a screen

COLORS = {
    "ours": "#0b62a4", "floor": "#7f7f7f", "reference": "#d08a2e", "pyg_schnet": "#57a05a", "pyg_dimenet++": "#9a5fb0",
}  # fmt: skip
MOLECULES = ("qm9", "ethanol", "aspirin")


def draw(rows: list[Row], path: Path) -> None:
    """Medians with whiskers from the 20th to the 80th percentile; a call that ran out of memory has no point."""
    rows = _of_one_way([row for row in rows if row["median"] != "oom"])
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4.4), width_ratios=(2, 1, 1), layout="constrained")
    molecules = [row for row in rows if row["case"] in MOLECULES and row["metric"] == "time"]
    liquid = [row for row in rows if row["case"] == "liquid"]
    _procedures(left, molecules)
    _growth(middle, [row for row in liquid if row["metric"] == "time"], "liquid, inference: ms")
    _growth(right, [row for row in liquid if row["metric"] == "memory"], "the same: MB above the base")
    for axes in (left, middle, right):
        if axes.has_data():
            above = dict(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=5) if axes is left else {}
            axes.legend(fontsize=8, frameon=False, **above)
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_scale() == "log":
                axis.set_major_formatter("{x:,g}")
                axis.set_minor_formatter("")
    figure.suptitle(heading(rows), fontsize=10)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _of_one_way(rows: list[Row]) -> list[Row]:
    """Of a GPU, where calls are measured in several ways: those replayed as CUDA graph, and memory."""
    if not any(row["mode"].endswith(REPLAY) for row in rows):
        return rows
    replayed = [row for row in rows if row["mode"].endswith(REPLAY)]
    memory = [row for row in rows if row["metric"] == "memory" and not row["mode"].endswith(REPLAY)]
    return [row | dict(mode=row["mode"].removesuffix(REPLAY)) for row in replayed] + memory


def _label(case: str, mode: str) -> str:
    """In short lines, which neighboring columns leave room for."""
    return f"{CASES[case]}, {mode}".replace(", ", "\n").replace("_and_forces", "\nand forces").replace("_", " ")


def _procedures(axes, rows: list[Row]) -> None:
    """One column of points for each procedure on molecules."""
    groups = list(dict.fromkeys((row["case"], row["mode"]) for row in rows))
    for provider, own in _by_provider(rows):
        x = [groups.index((row["case"], row["mode"])) + 0.08 * (list(TITLES).index(provider) - 2) for row in own]
        _points(axes, provider, x, own, "o")
    axes.set_xticks(range(len(groups)), [_label(case, mode) for case, mode in groups], fontsize=7)
    axes.set_yscale("log")
    axes.grid(axis="y", which="both", lw=0.3)
    axes.set_ylabel("ms", fontsize=9)


def _growth(axes, rows: list[Row], title: str) -> None:
    """Both axes logarithmic, with a dotted line of what is proportional to the number of atoms."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    for provider, own in _by_provider(rows):
        own.sort(key=lambda row: int(row["x"]))
        x, first = [int(row["x"]) for row in own], float(own[0]["median"])
        _points(axes, provider, x, own, "o-")
        axes.plot([x[0], x[-1]], [first, first * x[-1] / x[0]], ":", lw=0.8, color="black")
    sizes = sorted({int(row["x"]) for row in rows})
    axes.set_xticks(sizes or [1], [f"{size:,}" for size in sizes] or [""], fontsize=8)
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("atoms", fontsize=8)


def _by_provider(rows: list[Row]) -> list[tuple[str, list[Row]]]:
    chosen = [(name, [row for row in rows if row["provider"] == name]) for name in TITLES]
    return [(name, own) for name, own in chosen if own]


def _points(axes, provider: str, x: list[float], rows: list[Row], style: str) -> None:
    median, low, high = ([float(row[column]) for row in rows] for column in ("median", "p20", "p80"))
    whiskers = [[m - v for m, v in zip(median, low)], [v - m for m, v in zip(median, high)]]
    axes.errorbar(x, median, whiskers, fmt=style, ms=5, lw=1.2, color=COLORS[provider], label=TITLES[provider])
