"""Which molecules are for training, validation and test."""

import hashlib
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._files import write_file
from .formats.archives import Archive
from .molecules import Molecules
from .streams.molecules import PART, StreamedMolecules

_COUNT, _DIGEST = "molecules", "data_digest"  # arrays of a split file


class Split(NamedTuple):
    """Indices [.] int64 of three disjoint sets of molecules."""

    train: Tensor
    val: Tensor
    test: Tensor

    def save(self, path, molecules: Molecules | StreamedMolecules | None = None) -> None:
        """Write the three index arrays, in the format that `read_split` reads, and of which molecules they are.

        Raises OSError.
        """
        archive = BytesIO()
        arrays = {name: part.numpy().astype(np.int32) for name, part in self._asdict().items()}
        if molecules is not None:
            arrays |= {_COUNT: np.array([len(molecules)]), _DIGEST: digest(molecules)}
        np.savez_compressed(archive, **arrays)
        write_file(path, archive.getvalue())


def digest(molecules: Molecules | StreamedMolecules) -> np.ndarray:
    """[32] uint8, of the numbers of atoms and the labels: other data have another one, wherever they are."""
    found = hashlib.sha256(np.ascontiguousarray(molecules.n_atoms.numpy()))
    for part in torch.arange(len(molecules)).split(PART):
        found.update(np.ascontiguousarray(molecules.labels(part).numpy()))
    return np.frombuffer(found.digest(), np.uint8)


def hold_out(molecules: Molecules, symbols: list[str]) -> Molecules:
    """The same molecules, those with one of the elements `symbols` fixed as the test set, as `random_split` takes it.

    Raises:
        ValueError: a symbol is no element's, no molecule or every one has such an element, or the source fixes the test
            set itself.
    """
    from ase.data import atomic_numbers

    for symbol in symbols:
        if symbol not in atomic_numbers:
            raise ValueError(f"data.held_out: expected symbols of elements, got {symbol!r}")
    if molecules.test is not None:
        raise ValueError(f"data.held_out: expected a source without test frames of its own, got {symbols}")
    held = molecules.with_elements(torch.tensor([atomic_numbers[symbol] for symbol in symbols]))
    if not held.any() or held.all():
        how_many = "all" if held.any() else "none"
        raise ValueError(f"data.held_out: expected elements of some molecules, got {', '.join(symbols)} in {how_many}")
    return replace(molecules, test=held.nonzero()[:, 0])


def random_split(molecules: Molecules, train: int | None, val: int, test: int | None, seed: int) -> Split:
    """Draw the sets without replacement, the same for the same seed on every machine.

    Where the source fixes the test frames (`molecules.test`), training and validation are drawn from the others only,
    and `test` counts from the beginning of the fixed ones.

    Of molecules in groups (`molecules.group`: the frames of a relaxation) whole groups are drawn, so that no group is
    in two sets. The numbers are then met approximately: a set is filled with groups as long as they fit.

    Args:
        train, val, test: numbers of molecules (in groups: at most so many); None for `train` or `test` (not both,
            unless the source fixes the test frames): all that remain.

    Raises:
        ValueError: the sets do not fit into the data, or no group fits into a set.
    """
    fixed = molecules.test
    if train is None and test is None and fixed is None:
        raise ValueError("data.train, data.test: expected at least one number (the other takes the rest), got none")
    pool = np.ones(len(molecules), dtype=bool)
    if fixed is not None:
        pool[fixed.numpy()] = False
    group = np.arange(len(molecules)) if molecules.group is None else molecules.group.numpy()
    if fixed is not None:
        pool &= ~np.isin(group, group[fixed.numpy()])
    count = int(pool.sum())
    sizes = {"train": train, "val": val, "test": 0 if fixed is not None else test}
    rest = next((name for name, size in sizes.items() if size is None), None)
    if rest is not None:
        sizes[rest] = count - sum(size for size in sizes.values() if size is not None)
    if min(sizes.values()) < 0 or sum(sizes.values()) > count:
        kind = "training frames" if fixed is not None else "molecules"
        wanted = " + ".join(str(max(size, 0)) for size in sizes.values())
        raise ValueError(f"data.train, data.val, data.test: expected at most {count} {kind} in all, got {wanted}")
    if fixed is not None and test is not None and test > len(fixed):
        raise ValueError(f"data.test: expected at most {len(fixed)} test frames, got {test}")
    parts = _draw(np.flatnonzero(pool), group[pool], sizes, rest, seed)
    if fixed is not None:
        parts[2] = fixed.numpy()[:test]
    return _checked(Split(*(torch.from_numpy(np.ascontiguousarray(part)).long() for part in parts)), len(molecules))


def _draw(indices: np.ndarray, group: np.ndarray, sizes: dict[str, int], rest: str | None, seed: int) -> list:
    """Indices [.] of every set: groups in random order, each into a set with room, or else into `rest`."""
    names, inverse, lengths = np.unique(group, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    room, sets = dict(sizes), list(sizes)
    # Few groups fit into a small set, so it is asked first.
    asked = sets if len(names) == len(indices) else sorted(sets, key=sizes.get)
    part = np.full(len(names), -1)
    for number in order:
        chosen = next((name for name in asked if room[name] >= lengths[number]), rest)
        if chosen is not None:
            room[chosen] -= lengths[number]
            part[number] = sets.index(chosen)
    position = np.empty_like(order)
    position[order] = np.arange(len(order))
    drawn = np.argsort(position[inverse], kind="stable")
    parts = [indices[drawn[part[inverse[drawn]] == number]] for number in range(len(sets))]
    for (name, size), found in zip(sizes.items(), parts, strict=True):
        if size > 0 and len(found) == 0:
            between = f"{lengths.min()} to {lengths.max()}"
            raise ValueError(f"data.{name}: expected room for a whole group ({between} structures), got {size}")
    return parts


def read_split(path, count: int, molecules: Molecules | StreamedMolecules | None = None) -> Split:
    """Read index arrays ``train``, ``val`` and ``test`` (each optional but train) from an ``.npz`` file.

    molecules: those of which it has to be a split, if it says of which it is.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, an index repeats or is outside 0 to `count` - 1, or it says that it is of another
            number of molecules, or of others than `molecules`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such split file")
    with Archive(path) as archive:
        if not archive.first(*Split._fields):
            raise ValueError(f"{path}: expected index arrays train, val, test, got {', '.join(archive) or 'none'}")
        parts = [archive.whole(name, "M") if name in archive else np.zeros(0, np.int64) for name in Split._fields]
        of = int(archive.whole(_COUNT, "1")[0]) if _COUNT in archive else count
        drawn_from = archive.whole(_DIGEST, 32) if _DIGEST in archive else None
        archive.warn_of_unread()
    if of != count:
        raise ValueError(f"data.source: expected {of} molecules, of which {path} is a split, got {count}")
    if molecules is not None and drawn_from is not None and (drawn_from != digest(molecules)).any():
        raise ValueError(f"data.source: expected the molecules of which {path} is a split, got others or other labels")
    return _checked(Split(*map(torch.from_numpy, parts)), count)


def _checked(split: Split, count: int) -> Split:
    every = torch.cat(split)
    if len(every) and (int(every.min()) < 0 or int(every.max()) >= count):
        raise ValueError(f"split: expected indices 0 to {count - 1}, got {int(every.min())} to {int(every.max())}")
    if len(every.unique()) != len(every):
        raise ValueError("split: expected train, val and test without repetitions, got a molecule twice")
    return split
