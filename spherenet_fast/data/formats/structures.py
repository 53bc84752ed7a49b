"""Files of structures as ASE's Atoms: every structure of a file, with all labels that it holds, or an error."""

from __future__ import annotations

import io
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..labels import as_numbers
from .xyz import xyz_frames

if TYPE_CHECKING:
    from ase import Atoms

# What begins a structure in the formats of which ASE reads the first structure (or the last) and drops the others.
_BEGINNINGS = {
    "dmol-car": r"^!DATE",
    "gamess-us-out": r"COORDINATES OF ALL ATOMS ARE",
    "gaussian-in": r"\A|^\s*--[Ll]ink1--",
    "gen": r"^\s*\d+\s+[CSFHcsfh]\s*$",
    "gromacs": r"^\s*\d+\s*$",
    "gromos": r"^POSITION",
    "mol": r"V[23]000\s*$",
    "res": r"^TITL",
    "turbomole": r"^\$coord",
}

_ISOTOPES = {"D": (1002, 2.01410177812), "T": (1003, 3.0160492779)}  # symbol: stand-in for a number, mass in u


def read_structures(path) -> list[Atoms]:
    """All structures of a file that ASE understands; D and T are hydrogen with their masses.

    Numbers beside a structure (an ase.db's key_value_pairs and data, data items of an SDF, the targets of QM9's own xyz
    files) are in ``atoms.info``, vectors on its atoms in ``atoms.arrays``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: ASE cannot read it, it holds no structure or one without atoms, or it holds several in a format of
            which ASE reads only one.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: {'expected a file, got a folder' if path.is_dir() else 'no such file'}")
    try:
        with _isotopes_known():
            structures = _read(path, structure_format(path))
            for atoms in structures:
                _isotopes_to_hydrogen(atoms)
    except Exception as error:  # ASE's parsers raise whatever the first line that puzzles them leads to
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        reason = " ".join(reason.split())  # one line
        raise ValueError(f"{path}: expected structures that ASE can read, got {reason}") from error
    if not structures:
        raise ValueError(f"{path}: expected at least one structure, got none")
    for number, atoms in enumerate(structures):
        if len(atoms) == 0:
            raise ValueError(f"{path}: expected structures with atoms, got none in frame {number}")
    return structures


# Pictures, scripts and notes that lie beside structures; ASE takes some of them for formats that it only writes.
_NO_STRUCTURES = frozenset(
    ".png .jpg .jpeg .gif .svg .pdf .eps .ps .html .py .ipynb .sh .slurm .yaml .yml .toml .ini .csv .tex .bib .zip "
    ".tar .npz .npy .ckpt .pt .mp4 .pov .db-journal .lock".split()
)


def structure_format(path: Path) -> str | None:
    """ASE's name of the format of a file, by name or content; None: not one of structures."""
    from ase.io.formats import UnknownFileTypeError, extension2format, filetype, ioformats

    # by name: .md is the extension of CASTEP's trajectories, too
    if path.name.upper().startswith(("README", "LICENSE", "LICENCE")):
        return None
    if path.suffix.lower() in _NO_STRUCTURES:
        return None
    try:
        name = filetype(str(path))
    except UnknownFileTypeError:
        name = path.suffix[1:].lower()  # of an empty file, which is a wrong one of its format
        name = extension2format[name].name if name in extension2format else name
    return name if name in ioformats and ioformats[name].can_read else None


def _read(path: Path, name: str | None) -> list[Atoms]:
    import ase.io
    from ase.io.formats import open_with_compression

    if name is None:
        raise ValueError("a file of another kind")
    if name in ("extxyz", "xyz", "sdf") or name in _BEGINNINGS:
        with open_with_compression(str(path), "r") as file:
            text = file.read()
        if name in ("extxyz", "xyz"):
            return xyz_frames(text)
        if name == "sdf":
            return [_sdf_record(record) for record in re.split(r"^\$\$\$\$.*\n?", text, flags=re.M) if record.strip()]
        count = len(re.findall(_BEGINNINGS[name], text, flags=re.M))
        if count > 1:
            raise ValueError(f"{count} structures in the format {name}, of which ASE reads one: convert it to .extxyz")
    if name in ("db", "json"):
        return _database(path)
    return ase.io.read(path, ":", format=name)


def _sdf_record(text: str) -> Atoms:
    """A molecule of an SDF, its numerical data items in info."""
    from ase.io.sdf import read_sdf

    counts = text.split("\n")[3]
    if "V3000" in counts:
        raise ValueError("an SDF in the format V3000, expected V2000 (obabel -isdf in.sdf -osdf -O out.sdf converts)")
    atoms = read_sdf(io.StringIO(text))
    if len(atoms) != int(counts[:3]):
        raise ValueError(f"{len(atoms)} atoms in an SDF that declares {int(counts[:3])}")
    for item, value in re.findall(r"^>.*<([^<>\n]+)>.*\n(.*)$", text, flags=re.M):
        try:
            atoms.info[item] = float(value)
        except ValueError:
            atoms.info[item] = value
    return atoms


def _database(path: Path) -> list[Atoms]:
    """The rows of an ase.db."""
    import ase.db

    with ase.db.connect(str(path), serial=True) as database:
        return [atoms_of_row(row) for row in database.select()]


def atoms_of_row(row) -> Atoms:
    """A row of an ase.db, with the numbers and vectors of key_value_pairs and data."""
    atoms = row.toatoms()
    for key, value in {**row.data, **row.key_value_pairs}.items():
        array = as_numbers(value)
        if array is not None and array.shape == (len(atoms), 3):
            atoms.arrays.setdefault(key, array)
        else:
            atoms.info[key] = value
    return atoms


@contextmanager
def _isotopes_known():
    """D and T in ASE's table of symbols, which all its parsers look into, as numbers that no element has."""
    from ase.data import atomic_numbers

    atomic_numbers.update((symbol, number) for symbol, (number, _) in _ISOTOPES.items())
    try:
        yield
    finally:
        for symbol in _ISOTOPES:
            atomic_numbers.pop(symbol, None)


def _isotopes_to_hydrogen(atoms: Atoms) -> None:
    found = [(atoms.numbers == number, mass) for number, mass in _ISOTOPES.values()]
    if not any(where.any() for where, _ in found):
        return
    for where, _ in found:
        atoms.numbers[where] = 1
    masses = atoms.get_masses()
    for where, mass in found:
        masses[where] = mass
    atoms.set_masses(masses)
    if atoms.calc is not None:
        atoms.calc.atoms = atoms.copy()  # else its results would count as those of another structure
