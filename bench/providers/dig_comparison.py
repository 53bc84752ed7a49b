"""DIG's SphereNet against ours with the same weights: `python -m bench.providers.dig_comparison`.

Prints the largest differences of energies and forces on the benchmarks' molecules, in float64. In DIG a neighbor can be
its own torsion reference: its angle to itself is rounded to just above 0, and then it is the least of all, or to just
below 2π. "no self-reference" moves every angle below 1e-6 up by 2π, before the least is taken.
"""

import argparse
import math
import sys

import torch
from torch import Tensor

from bench.providers.dig_models import GEOMETRY, build
from bench.systems import aspirin, ethanol, qm9
from spherenet_fast.models import SphereNet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-spherical", type=int, default=3, help="3; the more, the longer the construction")
    num_spherical = parser.parse_args().num_spherical
    theirs = build(num_spherical).double().eval()
    ours = SphereNet.from_dig(theirs.model.state_dict(), num_spherical=num_spherical).double().eval()
    geometry = sys.modules[GEOMETRY]
    scatter = geometry.scatter

    def mended(src: Tensor, index: Tensor, **options) -> Tensor:
        if options.get("reduce") == "min":
            src = torch.where(src < 1e-6, src + 2 * math.pi, src)
        return scatter(src, index, **options)

    print(f"{'largest difference':32}{'energy':>10}{'forces':>10}", flush=True)
    for data, what in ((ethanol(16), "ethanol"), (aspirin(8), "aspirin"), (qm9(32), "QM9")):
        data.pos = data.pos.double()
        expected = ours.energy_and_forces(data)
        for geometry.scatter, how in ((scatter, "as released"), (mended, "no self-reference")):
            found = theirs.energy_and_forces(data)
            differences = [(a - b).abs().max().item() for a, b in zip(found, expected, strict=True)]
            print(f"{what + ', ' + how:32}" + "".join(f"{value:10.1e}" for value in differences), flush=True)


if __name__ == "__main__":
    main()
