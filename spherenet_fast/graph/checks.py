"""Checks of what enters the graph: every message names the argument, what was expected and what came."""

import math
import numbers

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode

MAX_STRUCTURES = 2**24  # in a batch; more are a mistake, found before memory is asked for in their number
MAX_ATOMS = 2**31 - 1


def may_read_values(tensor: Tensor) -> bool:
    """Whether Python may look at values: not while compiling or tracing, nor while a CUDA graph is recorded."""
    if torch.compiler.is_compiling():
        return False
    if get_proxy_mode() is not None:
        return False
    return not (tensor.is_cuda and torch.cuda.is_current_stream_capturing())


def check_forms(pos: Tensor, batch: Tensor | None) -> None:
    """Positions [N,3] and batch [N] or None, whatever their values: nothing waits for a GPU."""
    _tensor("pos", pos, (torch.float32, torch.float64))
    if pos.dim() != 2 or pos.shape[1] != 3:
        raise ValueError(f"pos: expected shape [N,3], got {list(pos.shape)}")
    if batch is None:
        return
    _tensor("batch", batch, (torch.int64,), pos.device)
    if batch.shape != (len(pos),):
        raise ValueError(f"batch: expected shape [{len(pos)}], got {list(batch.shape)}")


def check_pos(pos: Tensor) -> Tensor:
    """Finite positions [N,3] as float64, detached."""
    _readable("pos", pos)
    place = pos.detach().double()
    finite = place.isfinite()
    if not finite.all():
        atom = int((~finite).any(1).nonzero()[0])
        raise ValueError(f"pos: expected finite positions, got {place[atom].tolist()} for atom {atom}")
    return place


def check_cutoff(cutoff: float) -> float:
    if not isinstance(cutoff, numbers.Real):
        raise TypeError(f"cutoff: expected a number, got {type(cutoff).__name__}")
    if not (math.isfinite(cutoff) and cutoff > 0):
        raise ValueError(f"cutoff: expected a positive finite distance, got {cutoff}")
    return float(cutoff)


def check_max_num_neighbors(max_num_neighbors: int | None) -> int | None:
    if max_num_neighbors is None:
        return None
    _integer("max_num_neighbors", max_num_neighbors, 1)
    return int(max_num_neighbors)


def check_batch(batch: Tensor | None, pos: Tensor) -> tuple[Tensor, int]:
    """Sorted batch [N] (zeros if None) and the number of structures that it names."""
    if batch is None:
        return torch.zeros(len(pos), dtype=torch.int64, device=pos.device), 1
    if len(batch) == 0:
        return batch, 0
    falls = batch[1:] < batch[:-1]
    if falls.any():
        atom = int(falls.nonzero()[0]) + 1
        raise ValueError(f"batch: expected sorted, got {int(batch[atom])} after {int(batch[atom - 1])} at atom {atom}")
    if batch[0] < 0:
        raise ValueError(f"batch: expected no negative numbers, got {int(batch[0])}")
    if batch[-1] >= MAX_STRUCTURES:
        raise ValueError(f"batch: expected numbers below {MAX_STRUCTURES}, got {int(batch[-1])}")
    return batch, int(batch[-1]) + 1


def check_cell(cell: Tensor, pos: Tensor) -> None:
    """[B,3,3] or [3,3] with the dtype and device of the positions."""
    _tensor("cell", cell, (pos.dtype,), pos.device)
    if cell.dim() not in (2, 3) or cell.shape[-2:] != (3, 3):
        raise ValueError(f"cell: expected shape [B,3,3] or [3,3], got {list(cell.shape)}")


def check_periodicity(
    cell: Tensor | None, pbc: Tensor | None, pos: Tensor, batch: Tensor | None, num_structures: int
) -> tuple[Tensor | None, Tensor | None]:
    """Cell [B,3,3] float64, detached, and pbc [B,3], B >= num_structures; None for both if no direction repeats."""
    if pbc is not None:
        _tensor("pbc", pbc, (torch.bool,), pos.device)
        if pbc.dim() not in (1, 2) or pbc.shape[-1] != 3:
            raise ValueError(f"pbc: expected shape [B,3] or [3], got {list(pbc.shape)}")
    if cell is None:
        if pbc is not None and pbc.any():
            raise ValueError("cell: expected [B,3,3] or [3,3] because pbc has periodic directions, got None")
        return None, None
    check_cell(cell, pos)
    if cell.dim() == 2:
        cell = cell.expand(num_structures, 3, 3)
    if batch is None and len(cell) > 1:
        raise ValueError(f"batch: expected [{len(pos)}] because cell holds {len(cell)} structures, got None")
    if len(cell) < num_structures:
        raise ValueError(f"cell: expected at least {num_structures} structures as in batch, got {len(cell)}")
    if not cell.isfinite().all():
        raise ValueError(f"cell: expected finite vectors, got {cell.tolist()}")
    if pbc is None:
        pbc = torch.ones(3, dtype=torch.bool, device=pos.device)
    if pbc.dim() == 1:
        pbc = pbc.expand(len(cell), 3)
    if len(pbc) != len(cell):
        raise ValueError(f"pbc: expected [{len(cell)},3] or [3] as in cell, got {list(pbc.shape)}")
    if not pbc.any():
        return None, None
    return cell.detach().double(), pbc


def check_edges(edge_index: Tensor, num_nodes: int, shift: Tensor | None) -> None:
    """Edges [2,E] between num_nodes atoms, sorted by receiver, none from an atom to itself; shift [E,3] or None."""
    _tensor("edge_index", edge_index, (torch.int64,))
    _readable("edge_index", edge_index)
    if edge_index.dim() != 2 or len(edge_index) != 2:
        raise ValueError(f"edge_index: expected shape [2,E], got {list(edge_index.shape)}")
    _integer("num_nodes", num_nodes, 0, MAX_ATOMS)
    if edge_index.numel() and not 0 <= int(edge_index.min()) <= int(edge_index.max()) < num_nodes:
        raise ValueError(
            f"edge_index: expected atoms from 0 to {num_nodes - 1} (num_nodes - 1), got {int(edge_index.min())} to "
            f"{int(edge_index.max())}"
        )
    sender, receiver = edge_index
    falls = receiver[1:] < receiver[:-1]
    if falls.any():
        edge = int(falls.nonzero()[0]) + 1
        raise ValueError(
            f"edge_index: expected edges sorted by receiver (row 1), got receiver {int(receiver[edge])} after "
            f"{int(receiver[edge - 1])} at edge {edge}"
        )
    loop = sender == receiver
    if shift is not None:
        _tensor("shift", shift, (torch.int64,), edge_index.device)
        if shift.shape != (len(receiver), 3):
            raise ValueError(f"shift: expected shape [{len(receiver)},3], got {list(shift.shape)}")
        loop = loop & (shift == 0).all(1)
    if loop.any():
        edge = int(loop.nonzero()[0])
        raise ValueError(f"edge_index: expected edges between two atoms, got {int(sender[edge])} twice at edge {edge}")


def check_dense(name: str, value: Tensor) -> None:
    """TypeError for anything but a tensor that holds all its numbers, one after the other: none sparse, none nested."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(value).__name__}")
    if value.layout != torch.strided or value.is_nested:
        found = "a nested one" if value.is_nested else str(value.layout)
        raise TypeError(f"{name}: expected a dense tensor, got {found}")


def _readable(name: str, value: Tensor) -> None:
    if value.is_meta:
        raise ValueError(f"{name}: expected a tensor that has values, got one on the device meta")


def _tensor(name: str, value: Tensor, dtypes: tuple[torch.dtype, ...], device: torch.device | None = None) -> None:
    check_dense(name, value)
    if value.dtype not in dtypes:
        raise TypeError(f"{name}: expected {' or '.join(map(str, dtypes))}, got {value.dtype}")
    if device is not None and value.device != device:
        raise ValueError(f"{name}: expected device {device}, got {value.device}")


def _integer(name: str, value: int, least: int, most: float = math.inf) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")
    if value > most:
        raise ValueError(f"{name}: expected at most {most}, got {value}")
