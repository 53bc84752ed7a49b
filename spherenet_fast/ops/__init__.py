"""The fused operators, with exact first and second derivatives.

Equivalent to the functions of the same name in `spherenet_fast.ops.reference`, which say in a few lines of PyTorch what
is computed. Floating-point arguments share one dtype, float32 or float64. Under autocast the operators run in float32,
except for the products of linear layers, which are what autocast is for. A bad argument raises RuntimeError with its
name, what was expected and what came. Third derivatives raise RuntimeError.

Arrays that describe a graph, or an index and its transpose, are trusted to belong together; with
SPHERENET_FAST_CHECKS=1 in the environment they are compared, on CPU and GPU alike, which takes time.

Importing this package loads the compiled library and registers its operators as ``torch.ops.spherenet_fast``.
"""

from .._old_names import old_functions
from .gated_sum import gated_sum
from .linear import linear, linear_silu
from .neighbors import neighbor_edges, neighbor_pointers
from .product import outer_sum
from .radial_basis import radial_basis
from .radial_filter import radial_filter
from .row_chain import row_chain
from .segment_sum import gather, segment_sum
from .silu import silu
from .smooth_torsion import smooth_torsion
from .torsion_neighbor import torsion_neighbor

__all__ = [
    "gated_sum",
    "gather",
    "linear",
    "linear_silu",
    "neighbor_edges",
    "neighbor_pointers",
    "outer_sum",
    "radial_basis",
    "radial_filter",
    "row_chain",
    "segment_sum",
    "silu",
    "smooth_torsion",
    "torsion_neighbor",
]

__getattr__ = old_functions(__name__, {"torsion_reference": "torsion_neighbor"})
