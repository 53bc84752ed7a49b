"""Searches that take time and memory in proportion to the number of atoms: vesin, or nvalchemi-toolkit-ops on CUDA.

Both find every pair of a structure once, through each image within the cutoff, and have one signature:

    search(pos [N,3], bounds, cell [S,3,3], pbc [S,3], cutoff) -> first [H], second [H], shift [H,3], distance [H]

Structure s owns the atoms bounds[s][0] to bounds[s][1] - 1; pos and cell are float64, the cells are not flat; the
indices are int64, unsorted, and distance = |pos[second] - pos[first] + shift @ cell|.
"""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

HalfList = tuple[Tensor, Tensor, Tensor, Tensor]


def search(pos: Tensor, bounds: list[tuple[int, int]], cell: Tensor, pbc: Tensor, cutoff: float) -> HalfList:
    """Search where the positions are.

    On CUDA this needs nvalchemi-toolkit-ops (the package's extra "cuda"). Without it the positions are copied to the
    CPU and searched there, which a warning says once.
    """
    chosen = (cuda_search() if pos.is_cuda else None) or vesin_search
    return chosen(pos, bounds, cell, pbc, cutoff)


def vesin_search(pos: Tensor, bounds: list[tuple[int, int]], cell: Tensor, pbc: Tensor, cutoff: float) -> HalfList:
    """Search one structure after the other on the CPU; the result is on the device of the positions."""
    import vesin  # here, because molecules alone have no need of it

    device = pos.device
    place, vectors, repeats = (tensor.cpu().numpy() for tensor in (pos, cell, pbc))
    neighbor_list = vesin.NeighborList(cutoff=cutoff, full_list=False, n_threads=torch.get_num_threads())
    found: list[list[np.ndarray]] = [[np.empty((0, 2), np.int64)], [np.empty((0, 3), np.int64)], [np.empty(0)]]
    for structure, (start, stop) in enumerate(bounds):
        pairs, shift, distance = neighbor_list.compute(place[start:stop], vectors[structure], repeats[structure], "PSd")
        found[0].append(pairs.astype(np.int64) + start)
        found[1].append(shift.astype(np.int64))
        found[2].append(distance)
    pairs, shift, distance = (torch.from_numpy(np.concatenate(column)).to(device) for column in found)
    return pairs[:, 0], pairs[:, 1], shift, distance


@cache
def cuda_search() -> Callable[..., HalfList] | None:
    """The search of nvalchemi-toolkit-ops, all structures at once; None, with a warning, if it is not installed."""
    try:
        from nvalchemiops.torch.neighbors import NeighborOverflowError, neighbor_list
    except ImportError:
        warnings.warn(
            "neighbors are searched on the CPU: pip install 'spherenet_fast[cuda]' (nvalchemi-toolkit-ops) to search "
            "large and periodic systems on the GPU",
            stacklevel=2,
        )
        return None

    def nvalchemi_search(
        pos: Tensor, bounds: list[tuple[int, int]], cell: Tensor, pbc: Tensor, cutoff: float
    ) -> HalfList:
        atom = torch.cat([torch.arange(start, stop, device=pos.device) for start, stop in bounds])
        size = torch.tensor([stop - start for start, stop in bounds], device=pos.device)
        ptr = torch.nn.functional.pad(size.cumsum(0), (1, 0)).int()
        structure = torch.repeat_interleave(torch.arange(len(bounds), device=pos.device), size)
        options: dict[str, Any] = dict(cell=cell, pbc=pbc, batch_idx=structure.int(), batch_ptr=ptr)
        options.update(half_fill=True, return_neighbor_list=True, method="batch_cell_list")
        try:
            pairs, _, shift = neighbor_list(pos[atom], cutoff, **options)
        except NeighborOverflowError as overflow:  # its guess of the number of neighbors was too low
            pairs, _, shift = neighbor_list(pos[atom], cutoff, max_neighbors=overflow.num_neighbors, **options)
        pairs, shift = pairs.long(), shift.long()
        moved = torch.einsum("ea,eab->eb", shift.to(pos.dtype), cell[structure[pairs[0]]])
        first, second = atom[pairs]
        return first, second, shift, (pos[second] - pos[first] + moved).norm(dim=1)

    return nvalchemi_search
