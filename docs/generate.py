"""The parts of the site that are made when it is built: `write(folder)`.

configuration.md      every key of a config, from the dataclasses of its sections and the constructors of the models
benchmarks.md         the tables of bench/results/speed/*.csv, with their figures
ablation.md           the ablation's table, from bench/results/training/ablation.csv
pretrained.md         the cards of the weights in the package
minutes.md            runs of ethanol with equal budgets, from bench/results/training/md17.csv
other_potentials.md   beside MACE and PaiNN, from bench/results/training/other_potentials.csv
experiments.md        bench/results/experiments.md
changelog.md          CHANGELOG.md, where there is one
"""

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BENCH = ROOT / "bench"
RESULTS = BENCH / "results"


def write(folder: Path) -> None:
    """Write all parts to `folder`, which is made if it is not there."""
    from spherenet_fast.training.config import reference

    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))  # of the package `bench`
    folder.mkdir(parents=True, exist_ok=True)
    parts = {
        "configuration": reference.markdown(), "benchmarks": benchmarks(folder), "ablation": ablation(folder),
        "pretrained": pretrained(), "minutes": minutes(RESULTS / "training" / "md17.csv"),
        "other_potentials": other_potentials(RESULTS / "training" / "other_potentials.csv"),
        "experiments": _without_title(RESULTS / "experiments.md"), "changelog": changelog(),
    }  # fmt: skip
    for name, text in parts.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text() != text:  # else Sphinx would read the page again
            path.write_text(text)


def benchmarks(folder: Path) -> str:
    """The tables of every result file, each below its figure, which is copied to `folder`."""
    from bench.speed import report, result_files

    parts = []
    for path in sorted((RESULTS / "speed").glob("*.csv")):
        rows = result_files.read(path)
        title, text = result_files.heading(rows), report.markdown(rows)
        picture = path.with_suffix(".png")
        if picture.exists():
            shutil.copy(picture, folder / picture.name)
            text = f"![One training step and a growing liquid on {title}](generated/{picture.name})\n\n{text}"
        parts.append(f"## {path.stem}\n\n{text}")
    return "\n\n".join(parts) + "\n"


def ablation(folder: Path) -> str:
    """The paper's Table 4 with our runs, in how many of them its order holds, and curves, copied to `folder`."""
    from bench.training import experiments

    rows = experiments.read(RESULTS / "training" / "ablation.csv")
    paper = experiments.read(BENCH / "data" / "paper.csv", experiments.PAPER_COLUMNS)
    curves = Path(shutil.copy(RESULTS / "training" / "learning-curves.png", folder)).name
    picture = f"![Validation errors of forces, on 20 frames, with Muon](generated/{curves})"
    return f"{experiments.ablation(rows, paper)}\n\n{experiments.verdict(rows)}\n\n{picture}\n"


def pretrained() -> str:
    """A table of the errors of all weights in the package, and the card of each."""
    from bench.tables import pipes
    from spherenet_fast.pretrained import card, names

    cards = {name: card(name) for name in names()}
    lines = [
        [f"[`{name}`](#{name})", target, f"{error['MAE']:.3g}", f"{error['RMSE']:.3g}", error["unit"]]
        for name, facts in cards.items()
        for target, error in facts["errors"].items()
    ]
    parts = [pipes(["weights", "target", "MAE", "RMSE", "unit"], lines)]
    for name, facts in cards.items():
        units = ", ".join(f"{target}: {unit}" for target, unit in facts["units"].items())
        shown = facts | {"elements": ", ".join(facts["elements"]), "units": f"{units}; positions: Ang"}
        rows = [f"| {key} | {value} |" for key, value in shown.items() if key not in ("errors", "check")]
        parts.append("\n".join([f"## {name}", "", "| | |", "|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def minutes(path: Path) -> str:
    """One line for each run: its settings and budget, and its errors of forces and energy."""
    from bench.tables import pipes
    from bench.training import experiments

    rows = experiments.read(path)
    runs: dict[tuple, dict[str, str]] = {}
    names = ("data", "settings", "train", "batch", "minutes", "steps", "hardware", "threads")
    for row in rows:
        runs.setdefault(tuple(row[name] for name in names), {})[row["target"]] = experiments.digits(row["value"])
    head = ["data", "settings", "training frames", "batch", "minutes", "steps"]
    head += ["forces, kcal/mol/Å", "energy, kcal/mol", "on"]
    lines = []
    for run, errors in sorted(runs.items(), key=lambda item: -float(item[0][4])):
        data, settings, train, batch, spent, steps, hardware, threads = run
        cells = [data, settings, train, batch, f"{float(spent):g}", f"{int(steps):,}", errors.get("forces", "")]
        lines.append([*cells, errors.get("energy", ""), f"{hardware}, {threads} threads"])
    return pipes(head, lines) + "\n"


def other_potentials(path: Path) -> str:
    """One line for each model."""
    from bench.training import experiments, other_potentials

    return other_potentials.side_by_side(experiments.read(path)) + "\n"


def changelog() -> str:
    """CHANGELOG.md without its title."""
    path = ROOT / "CHANGELOG.md"
    return _without_title(path) if path.exists() else "No release has been made yet.\n"


def _without_title(path: Path) -> str:
    text = path.read_text()
    return text.partition("\n")[2].lstrip() if text.startswith("# ") else text
