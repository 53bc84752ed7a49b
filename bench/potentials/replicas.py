"""What a batch saves in TorchSim: `python -m bench.potentials.replicas CHECKPOINT STRUCTURE`.

Prints the median time of energies and forces of some copies of a structure, each rattled by itself, in one batch and
one after another, once the operators of both are recorded, as they are in dynamics.
"""

import argparse
import time
from pathlib import Path
from statistics import median

import torch
import torch_sim
from ase.io import read

from spherenet_fast import keep_freed_memory
from spherenet_fast.calculators.torchsim import SphereNetModel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("structure", type=Path, help="any file that ASE reads")
    parser.add_argument("--copies", type=int, default=16, help="[16]")
    parser.add_argument("--repeats", type=int, default=50, help="of each measurement [50]")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    model, structure = SphereNetModel(arguments.checkpoint), read(arguments.structure)
    copies = [structure.copy() for _ in range(arguments.copies)]
    for seed, copy in enumerate(copies):
        copy.rattle(0.02, seed=seed)
    batch, *single = (
        torch_sim.io.atoms_to_state(some, model.device, model.dtype) for some in (copies, *([one] for one in copies))
    )
    for state in (batch, single[0]):
        for _ in range(model.potential.recorded.after):
            model(state)
    together, apart = [], []
    for _ in range(arguments.repeats):  # in turn, since other work on the machine slows down what it meets
        together.append(milliseconds(lambda: model(batch)))
        apart.append(milliseconds(lambda: [model(state) for state in single]))
    print(f"{arguments.copies} copies, {arguments.threads} threads: ", end="")
    print(f"batch {median(together):.1f} ms, one by one {median(apart):.1f} ms")
    print(f"ratio {median(together) / median(apart):.3f}")


def milliseconds(call) -> float:
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


if __name__ == "__main__":
    main()
