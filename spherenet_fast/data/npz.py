"""Readers for the three layouts of NumPy archives in use for molecules.

* packed: ``n_atoms [M]``, ``z [ΣN]``, ``pos [ΣN, 3]``, with ``y [M, T]`` and ``target_names [T]``, or any number of
  one-dimensional label arrays ``[M]`` under their own names; optional ``forces [ΣN, 3]``, ``cell [M, 3, 3]``, ``pbc``,
  ``fixed [ΣN]``.
* relaxations: see `relaxations`.
* frames of one molecule: ``z [N]``, ``pos [F, N, 3]``, ``energy [F]``, ``forces [F, N, 3]``; the names of sGDML's MD17
  files (``R E F z``) and of rMD17's (``coords energies forces nuclear_charges``) are understood too.
* frames already divided: the same with ``train_`` and ``test_`` before every name but ``z``.

Units: ``energy_unit`` or ``target_units [T]`` in the file if present; MD17's files are in kcal/mol and QM9's targets in
the units of its paper; otherwise unknown.
"""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch

from .centering import centered
from .molecules import Molecules
from .relaxations import packed_relaxations
from .targets import QM9_TARGETS, canonical_target

_MD17_NAMES = {"R": "pos", "E": "energy", "F": "forces", "coords": "pos", "energies": "energy", "nuclear_charges": "z"}


def read_npz(
    path, labels: str = "original", dtype: torch.dtype = torch.float32, relaxations: bool = False
) -> Molecules:
    """Read an archive in one of the layouts above.

    Args:
        path: the file.
        labels: "original" or "revised" (the arrays ``*_energy_revised``, ``*_forces_revised`` of divided frames).
        dtype: of positions and forces.
        relaxations: every relaxation is one structure, the first, with the energy of the last; only in that layout.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty, truncated or no archive, has none of the layouts, or no relaxations.
    """
    arrays = _load(Path(path))
    if "pos_initial" in arrays:
        return packed_relaxations(path, arrays, dtype, relaxations)
    if relaxations:
        raise ValueError(f"data.relaxations: expected an array pos_initial in {path}, got {', '.join(arrays)}")
    if "n_atoms" in arrays:
        return _packed(path, arrays, dtype)
    unit = str(arrays["energy_unit"]) if "energy_unit" in arrays else None
    if "train_pos" in arrays:
        suffix = "" if labels == "original" else "_revised"
        parts = [_frames(path, arrays, prefix, suffix) for prefix in ("train_", "test_") if prefix + "pos" in arrays]
        pos, energy, forces = (_join([part[i] for part in parts]) for i in range(3))
        train = len(arrays["train_pos"])
        test = np.arange(train, len(pos)) if len(pos) > train else None
        return _trajectory(path, arrays["z"], pos, energy, forces, unit or "kcal/mol", dtype, test)
    if _MD17_NAMES.keys() & arrays.keys():
        unit = unit or "kcal/mol"
        arrays = {_MD17_NAMES.get(name, name): array for name, array in arrays.items()}
    if {"z", "pos"} <= arrays.keys():
        pos, energy, forces = _frames(path, arrays, "", "")
        return _trajectory(path, arrays["z"], pos, energy, forces, unit, dtype, None)
    raise ValueError(f"{path}: expected arrays n_atoms, z, pos or train_pos, z or R, E, F, z; got {', '.join(arrays)}")


def _load(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such data file")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path}: expected a NumPy archive (.npz); it is empty, truncated or no archive ({error})"
        ) from error


def _frames(path, arrays, prefix: str, suffix: str):
    """pos [F, N, 3], energy [F] or None, forces [F, N, 3] or None under their prefix and suffix."""
    energy, forces = (arrays.get(f"{prefix}{name}{suffix}") for name in ("energy", "forces"))
    if suffix and energy is None and forces is None:
        raise ValueError(f"data.labels: {path} has no revised labels ({prefix}energy{suffix}); got {', '.join(arrays)}")
    return arrays[prefix + "pos"], energy, forces


def _join(parts: list) -> np.ndarray | None:
    return None if any(part is None for part in parts) else np.concatenate(parts)


def _trajectory(path, z, pos, energy, forces, unit, dtype, test) -> Molecules:
    if pos.ndim != 3 or pos.shape[1:] != (len(z), 3):
        raise ValueError(f"{path}: pos: expected shape [F, {len(z)}, 3] for {len(z)} atoms, got {list(pos.shape)}")
    frames, atoms = pos.shape[:2]
    for name, array, shape in (("energy", energy, None), ("forces", forces, pos.shape)):
        if array is not None and (array.shape != shape if shape else array.size != frames):
            raise ValueError(
                f"{path}: {name}: expected one entry per frame of pos {list(pos.shape)}, got {list(array.shape)}"
            )
    names = () if energy is None else ("energy",)
    y = np.zeros((frames, 0)) if energy is None else energy.reshape(frames, 1)
    n_atoms = torch.full((frames,), atoms, dtype=torch.int64)
    return Molecules(
        n_atoms=n_atoms,
        z=torch.from_numpy(z.astype(np.int64)).repeat(frames),
        pos=centered(pos.reshape(-1, 3), n_atoms, None, None, dtype),
        y=torch.from_numpy(y.astype(np.float64)),
        names=names,
        units=tuple(unit for _ in names),
        forces=None if forces is None else torch.from_numpy(forces.reshape(-1, 3)).to(dtype),
        test=None if test is None else torch.from_numpy(test),
    )


def _packed(path, arrays, dtype) -> Molecules:
    if missing := {"z", "pos"} - arrays.keys():
        raise ValueError(f"{path}: expected arrays n_atoms, z and pos, got none called {' or '.join(sorted(missing))}")
    count = len(arrays["n_atoms"])
    names, columns, units = [], [], []
    if "y" in arrays and "target_names" in arrays:
        names = [canonical_target(str(name)) for name in arrays["target_names"]]
        columns = [arrays["y"]]
        units = [str(unit) for unit in arrays.get("target_units", [])]
        units = units or [QM9_TARGETS[name].unit if name in QM9_TARGETS else None for name in names]
    for name, array in arrays.items():
        if name not in ("n_atoms", "id") and array.shape == (count,) and array.dtype.kind in "fi":
            names.append(name)
            columns.append(array[:, None])
            units.append(str(arrays["energy_unit"]) if name == "energy" and "energy_unit" in arrays else None)
    cell = arrays.get("cell")
    pbc = arrays.get("pbc", None if cell is None else np.ones((count, 3), dtype=bool))
    y = np.concatenate(columns, axis=1) if columns else np.zeros((count, 0))
    if len(units) != len(names):
        raise ValueError(f"{path}: target_units: expected {len(names)} units, got {len(units)}")
    n_atoms = torch.from_numpy(arrays["n_atoms"].astype(np.int64))
    return Molecules(
        n_atoms=n_atoms,
        z=torch.from_numpy(arrays["z"].astype(np.int64)),
        pos=centered(arrays["pos"], n_atoms, cell, pbc, dtype),
        y=torch.from_numpy(y.astype(np.float64)),
        names=tuple(names),
        units=tuple(units),
        forces=None if "forces" not in arrays else torch.from_numpy(arrays["forces"]).to(dtype),
        cell=None if cell is None else torch.from_numpy(cell).to(dtype),
        pbc=None if pbc is None else torch.from_numpy(np.broadcast_to(pbc, (count, 3)).astype(bool)),
        fixed=None if "fixed" not in arrays else torch.from_numpy(arrays["fixed"].astype(bool)),
    )
