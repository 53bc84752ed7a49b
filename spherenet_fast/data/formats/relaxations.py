"""Relaxations: from an initial structure to the energy of the relaxed one, or frame by frame.

The archive (.npz) holds M relaxations of structures of any size, in Å and eV unless it states units as in `npz`:
``n_atoms [M]``, and concatenated ``z [ΣN]``, ``pos_initial [ΣN, 3]``, ``fixed [ΣN]`` (optional); ``cell [M, 3, 3]``,
``pbc [M, 3]`` (optional; else cells repeat in all directions), ``energy_initial [M]``, ``energy_relaxed [M]``; and F
frames along the way (optional): ``frame_system [F]`` (its relaxation), ``frame_energy [F]``, and concatenated frame by
frame ``frame_pos`` and ``frame_forces [., 3]``. ``pos_relaxed`` is not used.
"""

import numpy as np
import torch

from ..centering import centered
from ..molecules import Molecules
from .archives import Archive

# Not called "energy...", which is a total energy whose negative gradient is a force: these are of another structure.
RELAXATION_TARGETS = ("relaxed_energy", "initial_energy")

_ENERGIES = ("energy_relaxed", "energy_initial")
_FRAMES = ("frame_system", "frame_energy", "frame_pos")


def packed_relaxations(archive: Archive, dtype: torch.dtype, relaxations: bool, unit: str) -> Molecules:
    """The relaxations of an archive, one initial structure each; or else all frames with energies and forces.

    `unit` is that of the energies.

    Raises:
        ValueError: arrays are missing, or not as above.
    """
    needed = ["n_atoms", "z", "cell", *(_ENERGIES if relaxations else _FRAMES)]
    if missing := [name for name in needed if name not in archive]:
        raise ValueError(f"{archive.path}: expected arrays {', '.join(needed)}, got none called {' or '.join(missing)}")
    archive.understood(*_ENERGIES, *_FRAMES, "frame_forces", "pos_relaxed")
    n_atoms, z = archive.whole("n_atoms", "M"), archive.whole("z", "ΣN")
    count, atoms = len(n_atoms), len(z)
    pbc = archive.mask("pbc", count, 3) if "pbc" in archive else np.ones((count, 3), dtype=bool)
    initial = Molecules.from_file(
        archive.path,
        n_atoms=torch.from_numpy(n_atoms),
        z=torch.from_numpy(z),
        pos=torch.from_numpy(archive.numbers("pos_initial", atoms, 3)),
        y=torch.zeros(count, 0, dtype=torch.float64),
        cell=torch.from_numpy(archive.numbers("cell", count, 3, 3)),
        pbc=torch.from_numpy(pbc),
        fixed=torch.from_numpy(archive.mask("fixed", atoms)) if "fixed" in archive else None,
    )
    if relaxations:
        y = np.stack([archive.numbers(name, count) for name in _ENERGIES], 1).astype(np.float64)
        system, pos, names, forces = torch.arange(count), initial.pos, RELAXATION_TARGETS, None
    else:
        system = torch.from_numpy(archive.whole("frame_system", "F"))
        y, names = archive.numbers("frame_energy", len(system)).astype(np.float64)[:, None], ("energy",)
        pos = torch.from_numpy(archive.numbers("frame_pos", "ΣN", 3))
        forces = None
        if "frame_forces" in archive:
            forces = torch.from_numpy(archive.numbers("frame_forces", len(pos), 3)).to(dtype)
    if len(system) and not 0 <= int(system.min()) <= int(system.max()) < count:
        raise archive.error(
            "frame_system", f"expected relaxations 0 to {count - 1}, got {int(system.min())} to {int(system.max())}"
        )
    rows = initial.atoms_of(system)[0]
    cell, pbc = initial.cell[system], initial.pbc[system]
    return Molecules.from_file(
        archive.path,
        n_atoms=initial.n_atoms[system],
        z=initial.z[rows],
        pos=centered(pos, initial.n_atoms[system], cell, pbc, dtype),
        y=torch.from_numpy(y),
        names=names,
        units=(unit,) * len(names),
        forces=forces,
        cell=cell.to(dtype),
        pbc=pbc,
        fixed=None if initial.fixed is None else initial.fixed[rows],
        group=None if relaxations else system,
    )
