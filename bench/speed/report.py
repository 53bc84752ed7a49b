"""Makes tables and figures of all result files: `python -m bench.speed.report`.

Rewrites what stands between the markers in bench/README.md, and draws bench/results/speed/<device>.png and, where the
released code was measured, <device>-steps.png.
"""

import argparse
from pathlib import Path

from bench.providers.names import COMPARED, MODELS, TITLES
from bench.speed import result_files
from bench.speed.result_files import CASES, REPLAY, heading
from bench.tables import Row, pipes

BENCH = Path(__file__).parents[1]
EPOCH, STEP = 110_000, 32  # molecules: those that the paper trains on, those of the measured steps
WEIGHED = {  # in the columns of memory
    "ours": "ours", "reference": "plain PyTorch", "dig_spherenet": "released code", "pyg_dimenet++": "PyG DimeNet++",
}  # fmt: skip
Values = dict[tuple[str, str], str]  # (provider, metric) -> median


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=result_files.RESULTS, help="folder of the result files")
    parser.add_argument(
        "--readme", type=Path, nargs="+", default=[BENCH / "README.md"],
        help="files to rewrite between the markers; those without markers are left alone",
    )  # fmt: skip
    arguments = parser.parse_args()
    files = sorted(arguments.results.glob("*.csv"))
    if not files:
        parser.error(f"--results: expected a folder with result files, found none in {arguments.results}")
    devices = {path: result_files.read(path) for path in files}
    text = "\n\n".join(markdown(rows) for rows in devices.values())
    for readme in arguments.readme:
        if readme.exists():
            readme.write_text(replaced(readme.read_text(), text))
    # here, because a measurement imports this module and has no use for matplotlib
    from bench.speed.figure import draw, draw_steps

    for path, rows in devices.items():
        draw(rows, path.with_suffix(".png"))
        draw_steps(rows, path.with_name(f"{path.stem}-steps.png"))


def replaced(document: str, text: str) -> str:
    """The document with `text` between its markers "bench"; unchanged without them."""
    before, begin, rest = document.partition("<!-- bench:begin -->")
    _, end, after = rest.partition("<!-- bench:end -->")
    return f"{before}{begin}\n{text}\n{end}{after}" if end else document


def grouped(rows: list[Row]) -> dict[tuple[str, str, int, str], Values]:
    """Medians by (case, mode, atoms, unit of time), in the order of the file."""
    units = {(row["case"], row["mode"], row["x"]): row["unit"] for row in rows if row["metric"] == "time"}
    groups: dict[tuple[str, str, int, str], Values] = {}
    for row in rows:
        key = row["case"], row["mode"], row["x"]
        group = groups.setdefault((row["case"], row["mode"], int(row["x"]), units[key]), {})
        group[row["provider"], row["metric"]] = row["median"]
    return groups


def markdown(rows: list[Row]) -> str:
    """Two tables: models, in milliseconds and megabytes, and operators, in nanoseconds."""
    titled = [row for row in rows if row["case"] != "models"]
    providers = [name for name in TITLES if any(row["provider"] == name for row in titled)]
    groups = grouped(rows)
    compared = {key: values for key, values in groups.items() if key[0] == "models"}
    models = {key: values for key, values in groups.items() if key[3] == "ms" and key[0] != "models"}
    operators = {key: values for key, values in groups.items() if key[3] != "ms"}
    parts = [f"**{heading(rows)}**"]
    if models:
        head = ["ms", "atoms", *(TITLES[name] for name in providers), "ours / floor", "released code / ours"]
        head += [f"MB, {name}" for name in WEIGHED.values()]
        counted = any(("ours", "kernels") in values for values in models.values())
        head += ["kernels on a GPU"] * counted
        lines = [
            [title(case, mode), f"{atoms:,}" if atoms else ""]
            + [number(values.get((provider, "time"))) for provider in providers]
            + [ratio(values, "ours", "floor"), ratio(values, "dig_spherenet", "ours")]
            + [number(values.get((provider, "memory"))) for provider in WEIGHED]
            + [number(values.get(("ours", "kernels")))] * counted
            for (case, mode, atoms, _), values in models.items()
        ]
        parts.append(pipes(head, lines))
    if operators:
        head = ["operator", "unit", TITLES["ours"], TITLES["reference"], "plain PyTorch / ours"]
        lines = [
            [f"`{case}`, {mode.replace('_', ' ')}", unit, number(values.get(("ours", "time")))]
            + [number(values.get(("reference", "time"))), ratio(values, "reference", "ours")]
            for (case, mode, _, unit), values in operators.items()
        ]
        parts.append(pipes(head, lines))
    for (_, mode, _, _), values in compared.items():
        if not mode.endswith(REPLAY):
            parts.append(efficiency(values))
    return "\n\n".join(parts)


def efficiency(values: Values) -> str:
    """The paper's Table 5 for all models: parameters, time of an epoch of QM9, memory; this package's beside PyG's."""
    head = ["model", "parameters", "min an epoch", "MB", "PyG: min an epoch", "PyG: MB", "PyG's time / ours"]
    lines = []
    for name, other in COMPARED.items():
        pyg = [minutes(values.get((other, "time"))), number(values.get((other, "memory")))]
        own = [minutes(values.get((name, "time"))), number(values.get((name, "memory")))]
        count = values.get((name, "parameters"))
        times_faster = ratio(values, other, name) if other else ""
        lines.append([MODELS[name], f"{int(count):,}" if count else "", *own, *pyg, times_faster])
    return pipes(head, lines)


def minutes(milliseconds: str | None) -> str:
    """Of an epoch, from the time of one step."""
    if milliseconds in (None, "oom"):
        return number(milliseconds)
    return number(str(float(milliseconds) / 6e4 * EPOCH / STEP))


def ratios(rows: list[Row]) -> str:
    """The short table at the end of a run: time, floor and their ratio where there are both, else the time alone."""
    lines = [f"{'':60}{'ours':>10}{'floor':>10}{'ours / floor':>14}"]
    for (case, mode, atoms, unit), values in grouped(rows).items():
        numbers = number(values.get(("ours", "time"))), number(values.get(("floor", "time")))
        label = f"{title(case, mode)}, {unit}" + (f", {atoms} atoms" if case in ("liquid", "graph") else "")
        lines.append(f"{label:60}{numbers[0]:>10}{numbers[1]:>10}{ratio(values, 'ours', 'floor'):>14}")
    return "\n".join(lines)


def title(case: str, mode: str) -> str:
    return CASES.get(case, case) + ("" if mode == case else f": {mode.replace('_', ' ')}")


def number(value: str | None) -> str:
    """Three digits, all those before the point; nothing where nothing was measured."""
    if value is None:
        return ""
    if value == "oom":
        return "out of memory"
    return f"{float(value):,.0f}" if float(value) >= 100 else f"{float(value):.3g}"


def ratio(values: Values, above: str, below: str) -> str:
    numbers = [values.get((provider, "time"), "oom") for provider in (above, below)]
    return "" if "oom" in numbers else f"{float(numbers[0]) / float(numbers[1]):.2f}"


if __name__ == "__main__":
    main()
