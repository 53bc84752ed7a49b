"""SphereNet of DIG, the library that its authors released, called like `SphereNet`.

    pip install --no-deps dive-into-graphs        # 1.1.0; sympy, scipy and torch_geometric beside it
    python bench/dig_models.py                    # its energies and forces against ours with the same weights

Nothing of DIG is in this repository: it is imported where it is installed, and what it lacks with current versions of
its dependencies is provided from outside. torch_scatter and torch_sparse are used where they are installed, `stand_ins`
elsewhere. The neighbors come from this package's search, inside the measured call as for every other provider, and
none is left out: PyTorch Geometric's search, which the model would call, keeps 32 of an atom by default.
"""

import argparse
import importlib
import math
import sys
import warnings
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import numpy as np
import pyg_models
import torch
from torch import Tensor, nn

NEEDS = {"dig_spherenet": ("dive-into-graphs", "torch_geometric", "sympy", "scipy")}
METHODS = "dig.threedgraph.method"
GEOMETRY = "dig.threedgraph.utils.geometric_computing"
USING_DEVICE = (GEOMETRY, f"{METHODS}.spherenet.spherenet", f"{METHODS}.spherenet.features")


def build(num_spherical: int) -> nn.Module:
    """With default values but for num_spherical; half a minute and more, in which SymPy derives its formulas."""
    if not hasattr(np, "math"):  # NumPy 2 has none
        np.math = math
    warnings.filterwarnings("ignore", "Using torch.cross without specifying the dim arg")
    with _lent_packages():
        module = importlib.import_module(f"{METHODS}.spherenet.spherenet")
    module.radius_graph = pyg_models._edge_index
    return DigSphereNet(module.SphereNet(num_spherical=num_spherical))


class DigSphereNet(nn.Module):
    """DIG's SphereNet, which takes an object with z, pos and batch, under SphereNet's two methods."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, data) -> Tensor:
        return self._energy(data, data.pos)

    def energy_and_forces(self, data) -> tuple[Tensor, Tensor]:
        pos = data.pos.detach().requires_grad_()
        energy = self._energy(data, pos)
        (slope,) = torch.autograd.grad(energy.sum(), pos, create_graph=self.training)
        return (energy, -slope) if self.training else (energy.detach(), -slope)

    def _energy(self, data, pos: Tensor) -> Tensor:
        for name in USING_DEVICE:  # there it is a GPU wherever one is found
            sys.modules[name].device = pos.device
        return self.model(SimpleNamespace(z=data.z, pos=pos, batch=data.batch))


@contextmanager
def _lent_packages():
    """Stand-ins for what is not installed, gone afterward, so that other packages do not take them for the real ones.

    The package of DIG's methods is replaced as well, by an empty one with the same modules: the real one imports all
    of DIG's models and what they need.
    """
    import stand_ins  # and with it torch_geometric, which looks for torch_scatter and torch_sparse

    lent = {}
    for name, found in (("torch_scatter", "scatter"), ("torch_sparse", "SparseTensor")):
        if find_spec(name) is None:
            lent[name] = ModuleType(name)
            setattr(lent[name], found, getattr(stand_ins, found))
    if METHODS not in sys.modules:
        lent[METHODS] = ModuleType(METHODS)
        lent[METHODS].__path__ = find_spec(METHODS).submodule_search_locations
    sys.modules.update(lent)
    try:
        yield
    finally:
        for name in lent:
            del sys.modules[name]


def main() -> None:
    """Prints the largest differences of energies and forces on the benchmarks' molecules, in float64.

    In DIG a neighbor can be its own torsion reference: its angle to itself is rounded to just above 0, and then it is
    the least of all, or to just below 2π. "no self-reference" moves every angle below 1e-6 up by 2π, before the least
    is taken.
    """
    parser = argparse.ArgumentParser(description=main.__doc__.splitlines()[0])
    parser.add_argument("--num-spherical", type=int, default=3, help="3; the more, the longer the construction")
    num_spherical = parser.parse_args().num_spherical
    from cases import aspirin, ethanol, qm9

    from spherenet_fast.models import SphereNet

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
