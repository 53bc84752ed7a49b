"""Figures of a result file.

`draw`: the procedures on molecules, and how time and memory grow with a liquid. `draw_steps`: training steps of the
released code, PyTorch Geometric's DimeNet++ and this package.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  after the choice of a backend without a screen

from bench.providers.names import TITLES  # noqa: E402
from bench.speed.result_files import CASES, REPLAY, heading  # noqa: E402
from bench.tables import Row  # noqa: E402

COLORS = {
    "ours": "#0b62a4", "floor": "#7f7f7f", "reference": "#d08a2e", "dig_spherenet": "#b5483a", "pyg_schnet": "#57a05a",
    "pyg_dimenet++": "#9a5fb0",
}  # fmt: skip
MOLECULES = ("qm9", "ethanol", "aspirin")
STEPS = {
    "dig_spherenet": "SphereNet, released code (DIG)", "pyg_dimenet++": "DimeNet++, PyTorch Geometric",
    "ours": "SphereNet, spherenet_fast",
}  # fmt: skip


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


def draw_steps(rows: list[Row], path: Path) -> None:
    """Bars for each training step on molecules: time and memory, and how many times ours they are.

    Nothing is drawn where no step of the released code was measured.
    """
    rows = [row for row in _of_one_way(rows) if row["case"] in MOLECULES and row["mode"].endswith("_step")]
    measured = {(row["case"], row["provider"], row["metric"]): row for row in rows if row["median"] != "oom"}
    cases = [case for case in MOLECULES if (case, "dig_spherenet", "time") in measured]
    if not cases:
        return
    figure, panels = plt.subplots(1, 2, figsize=(11, 0.5 + 1.15 * len(cases)), sharey=True, layout="constrained")
    for axes, metric, unit in zip(panels, ("time", "memory"), ("ms", "MB")):
        for number, case in enumerate(cases):
            for place, provider in enumerate(STEPS):
                if (case, provider, metric) in measured:
                    value = float(measured[case, provider, metric]["median"])
                    own = measured.get((case, "ours", metric))
                    _bar(axes, number + 0.27 * (place - 1), value, own and float(own["median"]), provider, unit)
        axes.margins(x=0.35)
        axes.set_xlim(left=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel({"time": "one training step, ms", "memory": "memory of the step, MB"}[metric], fontsize=9)
    procedures = {row["case"]: row["mode"].removesuffix("_step").replace("_", " ") for row in rows}
    panels[0].set_yticks(range(len(cases)), [f"{CASES[case]}\n{procedures[case]}" for case in cases], fontsize=9)
    panels[0].invert_yaxis()
    bars = [plt.Rectangle((0, 0), 1, 1, color=COLORS[provider]) for provider in STEPS]
    figure.legend(bars, STEPS.values(), loc="outside upper center", ncols=3, fontsize=9, frameon=False)
    figure.supxlabel(heading(rows), fontsize=7, color="gray")
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _bar(axes, y: float, value: float, own: float | None, provider: str, unit: str) -> None:
    axes.barh(y, value, 0.25, color=COLORS[provider])
    times = f", {value / own:.1f}× ours" if own and provider != "ours" else ""
    axes.text(value, y, f" {value:,.0f} {unit}{times}", va="center", fontsize=8)


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
        aside = 0.08 * (list(TITLES).index(provider) - (len(TITLES) - 1) / 2)
        x = [groups.index((row["case"], row["mode"])) + aside for row in own]
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
