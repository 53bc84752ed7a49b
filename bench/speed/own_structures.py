"""What training costs on structures of one's own, all neighbors kept: `python -m bench.speed.own_structures SOURCE`.

SOURCE is what `spherenet-fast train` takes as `data.source`. A step has one structure: the loss of its energy, or of
its energy and the forces on its free atoms, and the gradients by all parameters. Times are CPU seconds of this process,
which do not count what others do on the machine; memory is the peak of the largest structure's step above what was in
use.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from bench import machine
from bench.speed import memory, result_files
from bench.tables import Row
from spherenet_fast import keep_freed_memory
from spherenet_fast.data import Batch, read_molecules
from spherenet_fast.graph import radius_graph
from spherenet_fast.models import SphereNet

CASE = "structures"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("--relaxations", action="store_true", help="the initial structures of relaxations alone")
    parser.add_argument("--structures", type=int, default=25, help="how many to measure, spread evenly [25]")
    parser.add_argument(
        "--num-spherical", type=int, default=3, help="of the model [3]; all else is SphereNet's default"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="a .csv file for the numbers, beside those that it has")
    arguments = parser.parse_args()
    if arguments.out is not None and arguments.out.suffix != ".csv":
        parser.error(f"--out: expected a name that ends in .csv, got {arguments.out}")
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    rows = measure(arguments)
    if arguments.out is not None:
        result_files.update(arguments.out, rows, (CASE,))


def measure(arguments: argparse.Namespace) -> list[Row]:
    """The rows, printed: of the largest structure x is the number of atoms, of the mean the number of structures."""
    molecules = read_molecules(arguments.source, relaxations=arguments.relaxations)
    torch.manual_seed(0)
    model = SphereNet(num_spherical=arguments.num_spherical).train()
    rows = []

    def add(mode: str, metric: str, unit: str, x: int, values: list[float], center: float) -> None:
        percentiles = [f"{value:.4g}" for value in (center, *np.percentile(values, [20, 80]))]
        rows.append(dict(zip(result_files.COLUMNS, [CASE, "ours", mode, metric, unit, str(x), *percentiles])))
        rows[-1] |= machine.environment("cpu")
        print(f"    {mode}, {metric}: {percentiles[0]} {unit}")

    by_size = molecules.n_atoms.argsort()
    largest = molecules[[int(by_size[-1])]]
    chosen = torch.linspace(0, len(molecules) - 1, min(arguments.structures, len(molecules))).round().long().tolist()
    print(f"largest structure: {describe(model, largest)}")
    print(f"{len(chosen)} of {len(molecules)} structures: {describe(model, molecules[chosen])}")
    for mode, forces in (("energy_step", False), ("energy_and_forces_step", True)):
        step(model, molecules[[int(by_size[0])]], forces)  # loads libraries
        if memory.supported("cpu"):
            peak = memory.peak_of(lambda forces=forces: step(model, largest, forces)) / 1e6
            add(mode, "memory", "MB", len(largest.z), [peak], peak)
        took = 1e3 * seconds(model, largest, forces)
        add(mode, "time", "ms", len(largest.z), [took], took)
        times = [1e3 * seconds(model, molecules[[number]], forces) for number in chosen]
        add(mode, "mean time", "ms", len(chosen), times, statistics.mean(times))
    return rows


def step(model: SphereNet, batch: Batch, forces: bool) -> None:
    if forces:
        energy, force = model.energy_and_forces(batch)
        (energy.square().mean() + batch.of_free_atoms(force).square().mean()).backward()
    else:
        model(batch).square().mean().backward()
    model.zero_grad(set_to_none=True)


def seconds(model: SphereNet, batch: Batch, forces: bool) -> float:
    start = time.process_time()
    step(model, batch, forces)
    return time.process_time() - start


def describe(model: SphereNet, batch: Batch) -> str:
    graph = radius_graph(batch.pos, batch.batch, model.hparams["cutoff"], batch.cell, batch.pbc)
    triplets = graph.num_triplets - int((graph.rev >= 0).sum())
    most = int(graph.in_ptr.diff().max())
    return (
        f"{len(batch.z):,} atoms, {len(graph.rev):,} edges, {triplets:,} triplets, at most {most} neighbors of an atom"
    )


if __name__ == "__main__":
    main()
