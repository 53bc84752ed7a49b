"""Relaxations: from an initial structure to the energy of the relaxed one, or frame by frame.

The archive (.npz) holds M relaxations of structures of any size, in Å and eV: ``n_atoms [M]``, and concatenated
``z [ΣN]``, ``pos_initial [ΣN, 3]``, ``fixed [ΣN]`` (optional); ``cell [M, 3, 3]``, ``energy_initial [M]``,
``energy_relaxed [M]``; and F frames along the way (optional): ``frame_system [F]`` (its relaxation), ``frame_energy
[F]``, and concatenated frame by frame ``frame_pos`` and ``frame_forces [., 3]``. Cells repeat in all directions.
"""

import numpy as np
import torch

from .centering import centered
from .molecules import Molecules

# Not called "energy...", which is a total energy whose negative gradient is a force: these are of another structure.
RELAXATION_TARGETS = ("relaxed_energy", "initial_energy")


def packed_relaxations(path, arrays: dict[str, np.ndarray], dtype: torch.dtype, relaxations: bool) -> Molecules:
    """The relaxations of an archive, one initial structure each; or else all frames with energies and forces.

    Raises:
        ValueError: arrays are missing.
    """
    needed = ["n_atoms", "z", "cell"]
    needed += ["energy_initial", "energy_relaxed"] if relaxations else ["frame_system", "frame_energy", "frame_pos"]
    if missing := [name for name in needed if name not in arrays]:
        raise ValueError(f"{path}: expected arrays {', '.join(needed)}, got none called {' or '.join(missing)}")
    n_atoms = torch.from_numpy(arrays["n_atoms"].astype(np.int64))
    z = torch.from_numpy(arrays["z"].astype(np.int64))
    cell = torch.from_numpy(arrays["cell"]).to(dtype)
    initial = Molecules(
        n_atoms,
        z,
        centered(arrays["pos_initial"], n_atoms, arrays["cell"], None, dtype),
        torch.zeros(len(n_atoms), 0, dtype=torch.float64),
        cell=cell,
        pbc=torch.ones(len(n_atoms), 3, dtype=torch.bool),
        fixed=torch.from_numpy(arrays["fixed"].astype(bool)) if "fixed" in arrays else None,
    )
    if relaxations:
        y = np.stack([arrays["energy_relaxed"], arrays["energy_initial"]], 1).astype(np.float64)
        system, pos, names, forces = torch.arange(len(n_atoms)), initial.pos, RELAXATION_TARGETS, None
    else:
        y, names = arrays["frame_energy"].astype(np.float64)[:, None], ("energy",)
        system = torch.from_numpy(arrays["frame_system"].astype(np.int64))
        forces = torch.from_numpy(arrays["frame_forces"]).to(dtype) if "frame_forces" in arrays else None
    if len(system) and not 0 <= int(system.min()) <= int(system.max()) < len(n_atoms):
        raise ValueError(
            f"{path}: frame_system: expected relaxations 0 to {len(n_atoms) - 1}, got {int(system.min())} to "
            f"{int(system.max())}"
        )
    if not relaxations:
        pos = centered(arrays["frame_pos"], n_atoms[system], arrays["cell"][system.numpy()], None, dtype)
    atoms = initial.atoms_of(system)[0]
    return Molecules(
        n_atoms[system],
        z[atoms],
        pos,
        torch.from_numpy(y),
        names,
        ("eV",) * len(names),
        forces,
        cell[system],
        initial.pbc[system],
        None if initial.fixed is None else initial.fixed[atoms],
        group=None if relaxations else system,
    )
