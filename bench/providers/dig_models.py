"""SphereNet of DIG, the library that its authors released, called like `SphereNet`.

    pip install --no-deps dive-into-graphs        # 1.1.0; sympy, scipy and torch_geometric beside it

Nothing of DIG is in this repository: it is imported where it is installed, and what it lacks with current versions of
its dependencies is provided from outside. torch_scatter and torch_sparse are used where they are installed,
`dig_stand_ins` elsewhere. The neighbors come from this package's search, inside the measured call as for every other
provider, and none is left out: PyTorch Geometric's search, which the model would call, keeps 32 of an atom by default.
"""

import importlib
import math
import sys
import warnings
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

from bench.providers import pyg_models

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
    # here, because torch_geometric comes with it and looks for torch_scatter and torch_sparse
    from bench.providers import dig_stand_ins

    lent = {}
    for name, found in (("torch_scatter", "scatter"), ("torch_sparse", "SparseTensor")):
        if find_spec(name) is None:
            lent[name] = ModuleType(name)
            setattr(lent[name], found, getattr(dig_stand_ins, found))
    if METHODS not in sys.modules:
        lent[METHODS] = ModuleType(METHODS)
        lent[METHODS].__path__ = find_spec(METHODS).submodule_search_locations
    sys.modules.update(lent)
    try:
        yield
    finally:
        for name in lent:
            del sys.modules[name]
