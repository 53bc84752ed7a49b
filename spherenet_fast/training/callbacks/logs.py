"""metrics.csv and the picture of it."""

import csv
import hashlib
from dataclasses import asdict
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import Logger

from ..._files import append_line, sync, write_file
from ...plots.files import save
from ..config import Config


class MetricsFile(Logger):
    """A Lightning logger that appends rows to one CSV file, across resumes.

    Args:
        path: the file; "step" is its first column.
        columns: names of all metrics that may be logged; others are left out.
        resume_step: keep the rows up to this step of an existing file, as they are; None: start afresh.

    Raises:
        OSError: the file cannot be written; so do the methods.
    """

    def __init__(self, path: Path, columns: list[str], resume_step: int | None = None):
        super().__init__()
        self.path = Path(path)
        self.columns = ["step", *columns]
        kept = [] if resume_step is None else [cells for cells in _cells(path) if float(cells["step"]) <= resume_step]
        write_file(self.path, self._text({name: name for name in self.columns}, *kept))

    def _text(self, *rows) -> bytes:
        text = StringIO(newline="")
        csv.DictWriter(text, self.columns, extrasaction="ignore").writerows(rows)
        return text.getvalue().encode()

    @property
    def name(self):
        return "metrics"

    @property
    def version(self):
        return 0

    def log_hyperparams(self, params, *args, **kwargs):
        """Nothing: config.yaml holds them."""

    def log_metrics(self, metrics, step=None):
        append_line(self.path, self._text({"step": step} | metrics))

    def save(self):
        """Wait until all rows are on the disk."""
        sync(self.path)


def other_loggers(config: Config, out: Path, resume_step: int | None) -> list[Logger]:
    """Lightning's loggers beside `MetricsFile` that the config asks for: TensorBoard, Weights & Biases.

    Raises ValueError where one does not begin.
    """
    training, found = config.training, []
    if training.tensorboard:
        found.append(TensorBoardLogger(out, name="tensorboard", version="", purge_step=resume_step or 0))
    if training.wandb != "off":
        found.append(_wandb(config, out))
    return found


def check_loggers(config: Config) -> None:
    """ValueError where the package of a logger is not installed."""
    if config.training.wandb != "off" and find_spec("wandb") is None:
        raise ValueError("training.wandb: expected Weights & Biases installed (pip install wandb), got none")


def _wandb(config: Config, out: Path) -> Logger:
    """A run of Weights & Biases called as the folder `out`, with the config; the same one after a resume."""
    identity = hashlib.sha256(str(out.absolute()).encode()).hexdigest()[:16]
    try:
        logger = WandbLogger(
            project=config.training.wandb_project, name=out.name, id=identity, save_dir=out, resume="allow",
            offline=config.training.wandb == "offline",
        )  # fmt: skip
        logger.log_hyperparams(asdict(config))
    except Exception as error:  # wandb raises what its service and the network come across
        reason = " ".join(str(error).split())
        raise ValueError(f"training.wandb: expected a run that begins; {reason}") from error
    return logger


def end_loggers(loggers: list[Logger]) -> None:
    """Write what Weights & Biases holds back until its run ends; another run of this process begins anew."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()


def read_metrics(path) -> list[dict[str, float]]:
    """The rows of a metrics file, without the empty cells; none where there is no file.

    Raises:
        ValueError: a cell is not a number.
    """
    return [{name: float(cell) for name, cell in cells.items()} for cells in _cells(path)]


def _cells(path) -> list[dict[str, str]]:
    """The cells of every row that are not empty, all of them numbers; without a last row that was cut off."""
    if not Path(path).is_file():
        return []
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        lines = file.read().splitlines(keepends=True)
    rows = csv.DictReader(line for line in lines if line.endswith("\n"))
    found = []
    try:
        for row in rows:
            found.append({name: cell for name, cell in row.items() if cell})
            list(map(float, (found[-1]["step"], *found[-1].values())))
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"{path}: line {rows.line_num}: expected a step and numbers, got others ({error})") from error
    return found


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
