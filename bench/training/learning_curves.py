"""Learning curves of runs, side by side: `python -m bench.training.learning_curves RUN... -o curves.png`.

RUN is a folder of `spherenet-fast train`. One panel for each source of data: validation errors of forces (or of the
first target) against steps, one color for each model.
"""

import argparse
from pathlib import Path

from matplotlib.figure import Figure

from bench.training.run_rows import ABLATION, SMOOTH, config_of, model_name
from spherenet_fast.plots.files import check_picture, save
from spherenet_fast.training.callbacks.logs import read_metrics

STYLES = ("-", "--", ":", "-.")  # of the first seeds
PREFIX = "val_mae_"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders")
    parser.add_argument("-o", "--out", type=Path, required=True, help="picture to write, .png or .svg")
    arguments = parser.parse_args()
    try:
        check_picture(arguments.out)
        save(draw(arguments.runs), arguments.out)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    print(f"picture in {arguments.out}")


def draw(runs: list[Path]) -> Figure:
    """Raises FileNotFoundError for a folder without config, ValueError for one without validation errors."""
    panels: dict[str, list[tuple[str, int, list[float], list[float]]]] = {}
    for run in runs:
        if not (run / "config.yaml").is_file():
            raise FileNotFoundError(f"{run}: expected the folder of a run, found no config.yaml there")
        config = config_of(run)
        rows = [row for row in read_metrics(run / "metrics.csv") if any(name.startswith(PREFIX) for name in row)]
        if not rows:
            raise ValueError(f"{run}: expected validation errors in metrics.csv, found none")
        target = "forces" if config["data"]["forces"] else next(n for n in rows[0] if n.startswith(PREFIX))
        target = target.removeprefix(PREFIX)
        errors = [row[PREFIX + target] for row in rows]
        labels = "" if config["data"]["labels"] == "original" else ", rMD17"
        panel = panels.setdefault(f"{Path(config['data']['source']).stem}{labels}, {target}", [])
        seed = config["training"]["seed"]
        panel.append((model_name(config["model"]), seed, [row["step"] for row in rows], errors))
    found = [line[0] for lines in panels.values() for line in lines]
    models = list(dict.fromkeys((*SMOOTH, *ABLATION, *found)))  # the same color in every picture
    figure = Figure(figsize=(4.2 * len(panels), 3.8), layout="constrained")
    for axes, (title, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for model, seed, steps, errors in sorted(lines, key=lambda line: (models.index(line[0]), line[1])):
            color = f"C{models.index(model)}"
            axes.plot(steps, errors, STYLES[seed % len(STYLES)], color=color, lw=1.2, label=f"{model}, seed {seed}")
        axes.set(title=title, xlabel="step", ylabel="MAE of validation, averaged weights", yscale="log")
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize=7, frameon=False)
    return figure


if __name__ == "__main__":
    main()
