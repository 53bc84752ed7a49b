"""Rows in CSV files, and tables in Markdown."""

import csv
from collections.abc import Callable
from pathlib import Path

Row = dict[str, str]


def read(path: Path, columns: list[str]) -> list[Row]:
    """All rows of a file. Raises ValueError if its columns are not `columns`."""
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    if reader.fieldnames != columns:
        raise ValueError(f"{path}: expected columns {columns}, got {reader.fieldnames}")
    return rows


def write(path: Path, columns: list[str], rows: list[Row]) -> None:
    """Make the file, and its folder where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def append(
    path: Path, rows: list[Row], columns: list[str], key: tuple[str, ...], order: Callable[[Row], int] | None = None
) -> None:
    """Add rows to a file of these columns, in place of rows with the same values of `key`; sorted by `order`."""
    renewed = {tuple(row[name] for name in key) for row in rows}
    before = read(path, columns) if path.exists() else []
    found = [row for row in before if tuple(row[name] for name in key) not in renewed] + rows
    write(path, columns, found if order is None else sorted(found, key=order))


def pipes(head: list[str], lines: list[list[str]]) -> str:
    """A table in Markdown, without the columns that are empty."""
    used = [column for column in range(len(head)) if any(line[column] for line in lines)]
    rule = ["---" if column == 0 else "---:" for column in range(len(head))]
    return "\n".join("| " + " | ".join(line[column] for column in used) + " |" for line in [head, rule, *lines])
