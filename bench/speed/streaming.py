"""Data that stays in its files: time of the one pass over it, of batches, and the memory of the processes.

`python -m bench.speed.streaming FOLDER --molecules 2000000 --format npz` makes so many molecules of 6 to 18 atoms in
FOLDER, unless they are there, and appends rows to a CSV file. Memory is what the kernel calls RssAnon, of the process
that trains and of the largest reader: pages of mapped files, which it can drop at any time, are not in it.
"""

import argparse
import multiprocessing
import os
import pickle
import time
from pathlib import Path

import numpy as np
import torch

from bench import tables
from bench.machine import commit, device_name
from bench.speed.memory import kilobytes
from spherenet_fast.data import ShuffledBatches, read_molecules, training_loader
from spherenet_fast.training.normalization import fit_normalization

SHARD = 50_000
COLUMNS = "format molecules workers metric unit value device commit".split()


def molecules(count: int, seed: int) -> dict[str, np.ndarray]:
    """Arrays of `count` molecules of 6 to 18 atoms H, C, N, O on the points of a grid, displaced a little."""
    draw = np.random.default_rng(seed)
    n_atoms = draw.integers(6, 19, count)
    total = int(n_atoms.sum())
    grid = np.stack(np.meshgrid(*[np.arange(3.0)] * 3), -1).reshape(-1, 3) * 1.4
    number = np.arange(total) - np.repeat(np.cumsum(n_atoms) - n_atoms, n_atoms)
    pos = (grid[number] + draw.uniform(-0.15, 0.15, (total, 3))).astype(np.float32)
    z = draw.choice(np.array([1, 6, 7, 8], np.uint8), total)
    energy = np.add.reduceat(-10.0 * z, np.cumsum(n_atoms) - n_atoms) + draw.normal(size=count)
    forces = draw.normal(size=(total, 3)).astype(np.float32)
    return {"n_atoms": n_atoms, "z": z, "pos": pos, "forces": forces, "energy": energy}


def split(arrays: dict[str, np.ndarray]):
    """z, pos, forces and energy of every molecule."""
    ends = np.cumsum(arrays["n_atoms"])
    for row, (first, last) in enumerate(zip(ends - arrays["n_atoms"], ends, strict=True)):
        yield (*(arrays[name][first:last] for name in ("z", "pos", "forces")), float(arrays["energy"][row]))


def write(path: Path, form: str, arrays: dict[str, np.ndarray]) -> None:
    """A shard of the format `form`."""
    if form == "npz":
        np.savez(path, **arrays, energy_unit="eV")
    elif form == "lmdb":
        import lmdb
        from torch_geometric.data import Data

        with lmdb.open(str(path), subdir=False, map_size=2**36, lock=False, sync=False) as file:
            with file.begin(write=True) as transaction:
                for number, (z, pos, forces, energy) in enumerate(split(arrays)):
                    tensors = {"pos": torch.from_numpy(pos), "force": torch.from_numpy(forces)}
                    cell = torch.eye(3)[None] * 20
                    data = Data(atomic_numbers=torch.from_numpy(z).float(), cell=cell, y=energy, **tensors)
                    transaction.put(str(number).encode(), pickle.dumps(data))
    else:
        import ase.db
        from ase import Atoms
        from ase.calculators.singlepoint import SinglePointCalculator

        with ase.db.connect(path, type="db", append=False) as rows:
            for z, pos, forces, energy in split(arrays):
                atoms = Atoms(z, pos)
                atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
                rows.write(atoms)


def private_megabytes(process: int) -> float:
    return kilobytes(f"/proc/{process}/status", "RssAnon:") / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--molecules", type=int, default=20_000)
    parser.add_argument("--format", choices=("npz", "lmdb", "db"), default="npz")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batches", type=int, default=2000, help="of 32 molecules, in random order")
    parser.add_argument("--out", type=Path, default=Path("bench/results/speed/streaming/npz.csv"))
    options = parser.parse_args()
    source = options.folder / f"{options.format}-{options.molecules}"
    if not source.is_dir():
        source.mkdir(parents=True)
        for number, first in enumerate(range(0, options.molecules, SHARD)):
            arrays = molecules(min(SHARD, options.molecules - first), number)
            write(source / f"{number:04}.{options.format}", options.format, arrays)
    size = sum(file.stat().st_size for file in source.iterdir())
    found = {"bytes": (size / options.molecules, "B/molecule"), "base": (private_megabytes(os.getpid()), "MB")}

    began = time.perf_counter()
    index = options.folder / "index"
    reading = dict(forces=True, stream=True, index=index, workers=options.workers)
    data = read_molecules(source, **reading).choose(["energy"], {"energy": "meV"}, True)
    found["pass"] = len(data) / (time.perf_counter() - began), "molecules/s"
    found["pass_memory"] = private_megabytes(os.getpid()), "MB"
    facts = sum(file.stat().st_size for file in index.rglob("*.bin"))
    found["index"] = facts / options.molecules, "B/molecule"
    began = time.perf_counter()
    fit_normalization(data, torch.arange(len(data)))
    found["statistics"] = len(data) / (time.perf_counter() - began), "molecules/s"

    order = ShuffledBatches(torch.arange(len(data)), 32, seed=0)
    began, largest = time.perf_counter(), {}
    for number, _ in enumerate(training_loader(data, order), 1):
        if number in (options.batches // 4, options.batches):
            readers = [private_megabytes(child.pid) for child in multiprocessing.active_children()]
            largest[number] = private_megabytes(os.getpid()), max(readers, default=0.0)
        if number == options.batches:
            break
    found["batches"] = 32 * options.batches / (time.perf_counter() - began), "molecules/s"
    for number, (trains, reads) in largest.items():
        found[f"memory_at_batch_{number}"], found[f"reader_at_batch_{number}"] = (trains, "MB"), (reads, "MB")
    for metric, (value, unit) in found.items():
        print(f"{metric:24} {value:12.4g} {unit}")
    run = {"format": options.format, "molecules": str(options.molecules), "workers": str(options.workers)}
    run |= {"device": device_name("cpu"), "commit": commit()}
    rows = [run | {"metric": name, "unit": unit, "value": f"{value:.4g}"} for name, (value, unit) in found.items()]
    tables.append(options.out, rows, COLUMNS, ("format", "molecules", "workers"))


if __name__ == "__main__":
    main()
