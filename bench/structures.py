"""What training costs on structures of one's own, all neighbours kept: `python bench/structures.py SOURCE`.

SOURCE is what `spherenet-fast train` takes as `data.source`. A step has one structure: the loss of its energy, or of its
energy and the forces on its free atoms, and the gradients by all parameters. Times are CPU seconds of this process, which
do not count what others do on the machine; memory is what a step of the largest structure takes in a fresh process.
"""

import argparse
import statistics
import time

import torch

import memory
from spherenet_fast import keep_freed_memory
from spherenet_fast.data import Batch, read_molecules
from spherenet_fast.graph import radius_graph
from spherenet_fast.models import SphereNet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("--relaxations", action="store_true", help="the initial structures of relaxations alone")
    parser.add_argument("--forces", action="store_true", help="energies and forces, not energies alone")
    parser.add_argument("--structures", type=int, default=25, help="how many to measure, spread evenly [25]")
    parser.add_argument(
        "--num-spherical", type=int, default=3, help="of the model [3]; all else is SphereNet's default"
    )
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    print(measure(arguments))


def measure(arguments: argparse.Namespace) -> str:
    molecules = read_molecules(arguments.source, relaxations=arguments.relaxations)
    torch.manual_seed(0)
    model = SphereNet(num_spherical=arguments.num_spherical).train()
    by_size = molecules.n_atoms.argsort()
    step(model, molecules[[int(by_size[0])]], arguments.forces)  # loads libraries
    largest = molecules[[int(by_size[-1])]]
    lines = [f"largest structure: {describe(model, largest)}"]
    if memory.supported("cpu"):
        peak = memory.peak_of(lambda: step(model, largest, arguments.forces))
        lines.append(f"    peak memory of a step above what was in use: {peak / 1e6:.0f} MB")
    lines.append(f"    a step: {1e3 * seconds(model, largest, arguments.forces):.0f} ms")
    chosen = torch.linspace(0, len(molecules) - 1, min(arguments.structures, len(molecules))).round().long().tolist()
    times = [seconds(model, molecules[[number]], arguments.forces) for number in chosen]
    lines.append(f"{len(times)} of {len(molecules)} structures, {describe(model, molecules[chosen])}")
    mean, median = 1e3 * statistics.mean(times), 1e3 * statistics.median(times)
    return "\n".join([*lines, f"    a step: {mean:.0f} ms in the mean, {median:.0f} ms in the median"])


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
    triplets = graph.num_pairs - int((graph.rev >= 0).sum())
    most = int(graph.in_ptr.diff().max())
    return (
        f"{len(batch.z):,} atoms, {len(graph.rev):,} edges, {triplets:,} triplets, at most {most} neighbours of an atom"
    )


if __name__ == "__main__":
    main()
