"""XYZ files, plain, extended and QM9's own, frame by frame: ASE parses a frame, and each error says which one."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from ..labels import QM9_MARK

if TYPE_CHECKING:
    from ase import Atoms

# The comment of a file of QM9's: QM9_MARK, the molecule's number, and these targets.
_QM9_TARGETS = "A B C mu alpha homo lumo gap r2 zpve U0 U H G Cv".split()
_QM9_TRAILER = 3  # lines after the atoms: frequencies, SMILES, InChI


def xyz_frames(text: str) -> list[Atoms]:
    """The frames of an XYZ file, in the order of the file; blank lines between them mean nothing.

    The targets of QM9's own files are in ``atoms.info`` under their usual names, and "gdb" is the molecule's number.

    Raises:
        ValueError: a frame is damaged; the message gives its number, from 0, and its first line, from 1.
    """
    lines = text.replace("*^", "e").replace("\r\n", "\n").split("\n")  # QM9's files write 1.2*^-6 for 1.2e-6
    lines = lines[:-1] if lines[-1] == "" else lines  # the end of the last line begins none
    frames, first = [], 0
    while first < len(lines):
        if not lines[first].strip():
            first += 1
            continue
        try:
            atoms, end = _frame(lines, first)
        except Exception as error:  # ASE's parser raises whatever the first word that puzzles it leads to
            reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise ValueError(f"frame {len(frames)}, line {first + 1}: {reason}") from error
        frames.append(atoms)
        first = end
    return frames


def _frame(lines: list[str], first: int) -> tuple[Atoms, int]:
    """The frame that begins with the line `first`, and the line after it."""
    from ase.io.extxyz import read_extxyz

    words = lines[first].split()
    if len(words) != 1 or not words[0].isdecimal():
        raise ValueError(f"expected the number of atoms, got {lines[first][:60]!r}")
    count = int(words[0])
    if count == 0:
        raise ValueError("expected at least 1 atom, got 0")
    if count > len(lines) - first - 2:
        raise ValueError(f"expected {count} atoms, got {max(len(lines) - first - 2, 0)} lines after the comment")
    comment, end = lines[first + 1], first + 2 + count
    if comment.split()[:1] == [QM9_MARK]:
        return _qm9_frame(comment, lines[first + 2 : end]), end + _QM9_TRAILER
    while end < len(lines) and lines[end].lstrip().startswith("VEC"):
        end += 1
    _check_columns(comment, lines[first + 2])
    return next(read_extxyz(io.StringIO("\n".join(lines[first:end]) + "\n"), 0)), end


def _check_columns(comment: str, line: str) -> None:
    """ValueError where Properties declares more columns than the first atom has: ASE makes room for all of them."""
    properties = re.search(r"Properties\s*=\s*[\"']?([^\s\"']+)", comment)
    declared = sum(int(count) for count in re.findall(r":(\d+)(?=:|$)", properties[1])) if properties else 0
    if declared > len(line.split()):
        raise ValueError(f"Properties: expected {declared} columns of atoms, got {line[:60]!r}")


def _qm9_frame(comment: str, atom_lines: list[str]) -> Atoms:
    from ase import Atoms

    _, number, *values = comment.split()
    rows = [line.split() for line in atom_lines]
    if len(values) != len(_QM9_TARGETS) or any(len(row) not in (4, 5) for row in rows):
        raise ValueError("expected a molecule as in QM9's files: 15 targets, and a symbol and 3 or 4 numbers an atom")
    targets = dict(zip(_QM9_TARGETS, map(float, values), strict=True))
    positions = [[float(x) for x in row[1:4]] for row in rows]
    return Atoms([row[0] for row in rows], positions, info={QM9_MARK: int(number)} | targets)
