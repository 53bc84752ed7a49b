"""SphereNet with fused kernels and exact derivatives.

>>> import torch
>>> from types import SimpleNamespace
>>> from spherenet_fast import SphereNet
>>> water = SimpleNamespace(
...     z=torch.tensor([8, 1, 1]), pos=torch.tensor([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]), batch=None
... )
>>> energy, forces = SphereNet().eval().energy_and_forces(water)
>>> energy.shape, forces.shape
(torch.Size([1, 1]), torch.Size([3, 3]))

PyTorch is imported, and the operators registered as ``torch.ops.spherenet_fast``, when a name is first used; `import
spherenet_fast.ops` does so at once.
"""

import sys
from typing import TYPE_CHECKING

from ._lazy import lazy_names
from ._old_names import OldNames

if TYPE_CHECKING:
    from ._freed_memory import keep_freed_memory
    from .graph import Graph, build_graph, edge_vectors, radius_graph
    from .models import DimeNet, DimeNetPlusPlus, PhysNet, SchNet, SphereNet
    from .nn.framework import GraphNetwork3D, SphericalMessagePassing
    from .training.potential import load

__version__ = "0.1.0"
__all__ = [
    "DimeNet",
    "DimeNetPlusPlus",
    "Graph",
    "GraphNetwork3D",
    "PhysNet",
    "SchNet",
    "SphereNet",
    "SphericalMessagePassing",
    "build_graph",
    "edge_vectors",
    "keep_freed_memory",
    "load",
    "radius_graph",
]

_MODULES = {
    "_freed_memory": ("keep_freed_memory",),
    "nn.framework": ("GraphNetwork3D", "SphericalMessagePassing"),
    "graph": ("Graph", "build_graph", "edge_vectors", "radius_graph"),
    "training.potential": ("load",),
    "models": ("DimeNet", "DimeNetPlusPlus", "PhysNet", "SchNet", "SphereNet"),
}
__getattr__, __dir__ = lazy_names(__name__, {name: module for module, names in _MODULES.items() for name in names})

sys.meta_path.insert(0, OldNames())
