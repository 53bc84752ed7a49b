"""Positions near the origin, where float32 resolves them: a molecule that lies elsewhere has the same energy."""

import torch
from torch import Tensor

from ..graph.periodic import complete_cell, is_flat

# Atoms half a cell away from the first one, as symmetric crystals have them, all go to the same side, whatever rounding
# makes of the half.
ABOVE_HALF = 1e-4
STRUCTURES = 1024  # at a time, so that a large data set needs little memory besides its own


def centered(pos, n_atoms: Tensor, cell, pbc, dtype: torch.dtype) -> Tensor:
    """Positions [ΣN, 3] in `dtype`, moved in float64 before they are rounded; as they are if nothing is rounded.

    Along directions that repeat, every atom goes to that of its images which is nearest to the structure's first atom,
    and that one to 0; along the others, the middle of the structure goes to 0. So what comes out is the same wherever
    the structure lies, and in whichever cell its atoms do. Structures whose cell spans no volume, or is not finite, are
    moved as if they did not repeat.

    Args:
        pos: [ΣN, 3], Å, in the precision of its source; a tensor or an array.
        n_atoms: [M] int64.
        cell: [M, 3, 3] Å, a tensor or an array, or None.
        pbc: [M, 3] or [3] bool, a tensor or an array, or None: all directions, if there is a cell.
    """
    pos, count = torch.as_tensor(pos), len(n_atoms)
    cell = None if cell is None else torch.as_tensor(cell)
    pbc = torch.ones(count, 3, dtype=torch.bool, device=pos.device) if pbc is None else torch.as_tensor(pbc).bool()
    if torch.promote_types(pos.dtype, dtype) == dtype:
        return pos.to(dtype)
    right = pos.shape == (int(n_atoms.sum()), 3) and pbc.shape in ((3,), (count, 3))
    right = right and (cell is None or cell.shape == (count, 3, 3)) and bool(pos.isfinite().all())
    if not right or count == 0 or int(n_atoms.min()) < 1 or int(n_atoms.max()) > len(pos):
        return pos.to(dtype)  # `Molecules` says what is wrong; a sum of large counts may have wrapped around
    pbc = pbc.expand(count, 3)
    offset = torch.nn.functional.pad(n_atoms.cumsum(0), (1, 0)).tolist()
    out = torch.empty(pos.shape, dtype=dtype, device=pos.device)
    for start in range(0, count, STRUCTURES):
        some = slice(start, start + STRUCTURES)
        atoms = slice(offset[start], offset[min(start + STRUCTURES, count)])
        box = None if cell is None else cell[some].double()
        out[atoms] = _moved(pos[atoms].double(), n_atoms[some], box, pbc[some])
    return out


def _moved(pos: Tensor, n_atoms: Tensor, cell: Tensor | None, pbc: Tensor) -> Tensor:
    """`centered` in float64."""
    structure = torch.repeat_interleave(torch.arange(len(n_atoms), device=n_atoms.device), n_atoms)
    pos = pos - pos[n_atoms.cumsum(0) - n_atoms][structure]
    if cell is None:
        return pos - _mean(pos, structure, n_atoms)
    pbc = pbc & cell.isfinite().all(2).all(1)[:, None]
    cell = complete_cell(cell, pbc)
    flat = is_flat(cell)
    pbc = pbc & ~flat[:, None]
    cell = torch.where(flat[:, None, None], torch.eye(3, dtype=cell.dtype, device=cell.device), cell)
    steps = (pos[:, None] @ torch.linalg.inv(cell)[structure])[:, 0]  # [ΣN, 3], in cell vectors
    away = torch.where(pbc[structure], (steps + 0.5 + ABOVE_HALF).floor(), _mean(steps, structure, n_atoms))
    return pos - (away[:, None] @ cell[structure])[:, 0]


def _mean(rows: Tensor, structure: Tensor, n_atoms: Tensor) -> Tensor:
    """The mean of rows [ΣN, 3] over each structure, at its atoms: [ΣN, 3]."""
    sums = rows.new_zeros(len(n_atoms), 3).index_add_(0, structure, rows)
    return (sums / n_atoms[:, None])[structure]
