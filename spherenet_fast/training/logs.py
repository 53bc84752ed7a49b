"""metrics.csv and the picture of it."""

import csv
from pathlib import Path

from lightning.pytorch.loggers.logger import Logger

from ..pictures.files import save


class MetricsFile(Logger):
    """A Lightning logger that appends rows to one CSV file, across resumes.

    Args:
        path: the file; "step" is its first column.
        columns: names of all metrics that may be logged; others are left out.
        resume_step: keep the rows up to this step of an existing file; None: start afresh.
    """

    def __init__(self, path: Path, columns: list[str], resume_step: int | None = None):
        super().__init__()
        self.path = Path(path)
        self.columns = ["step", *columns]
        kept = [] if resume_step is None else [row for row in read_metrics(path) if row["step"] <= resume_step]
        with open(self.path, "w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(kept)

    @property
    def name(self):
        return "metrics"

    @property
    def version(self):
        return 0

    def log_hyperparams(self, params, *args, **kwargs):
        """Nothing: config.yaml holds them."""

    def log_metrics(self, metrics, step=None):
        with open(self.path, "a", newline="") as file:
            csv.DictWriter(file, self.columns, extrasaction="ignore").writerow({"step": step} | metrics)


def read_metrics(path) -> list[dict[str, float]]:
    """The rows of a metrics file, without the empty cells."""
    if not Path(path).is_file():
        return []
    with open(path, newline="") as file:
        return [{name: float(cell) for name, cell in row.items() if cell} for row in csv.DictReader(file)]


def plot_learning_curve(metrics_path, picture_path, units: dict[str, str | None]) -> None:
    """Draw mean absolute errors against steps, one panel per target, on logarithmic axes.

    Args:
        metrics_path: a metrics file. picture_path: a PNG or SVG to write, all or nothing.
        units: {name of target or "forces": unit}, one panel each.
    """
    # Not pyplot: it would choose a window system, and the figure is only ever a file.
    from matplotlib.figure import Figure

    rows = read_metrics(metrics_path)
    columns = min(len(units), 4)
    lines = -(-len(units) // columns)
    figure = Figure(figsize=(5 * columns, 3.6 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).flat
    for ax in axes[len(units) :]:
        ax.remove()
    for ax, (name, unit) in zip(axes, units.items(), strict=False):
        for part, label, style in (
            ("train", "training", {"lw": 1, "alpha": 0.6}),
            ("val", "validation (averaged weights)", {"lw": 1.5, "marker": "o", "ms": 3}),
        ):
            column = f"{part}_mae_{name}"
            shown = [row for row in rows if column in row]
            if shown:
                ax.plot([row["step"] for row in shown], [row[column] for row in shown], label=label, **style)
        ax.set(title=name, xlabel="step", ylabel=f"mean absolute error ({unit or 'units of the data'})", yscale="log")
        ax.grid(alpha=0.3, which="both")
        if ax.lines:
            ax.legend(frameon=False)
    save(figure, picture_path)
