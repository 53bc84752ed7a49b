"""The operators in readable PyTorch: the specification that the fused kernels are tested against.

Same names, signatures and results as in `spherenet_fast.ops`, which has the search for neighbors as well. Every
function follows its formula line by line, keeps whatever it likes per triplet, and is differentiated by plain autograd,
twice where the fused operator is. Square roots and quotients are guarded where an atom, its neighbor and the next one
lie on a line, so no derivative is ever NaN.
Under autocast everything runs in float32.
"""

from .gated_sum import angle_filter, gated_sum, spherical_harmonics, torsion_filter, triplet_geometry
from .linear import linear, linear_silu
from .product import outer_sum
from .radial_basis import envelope, radial_basis, spherical_bessel
from .radial_filter import radial_filter
from .row_chain import row_chain
from .segment_sum import gather, segment_sum
from .silu import silu
from .smooth_torsion import smooth_torsion
from .torsion_reference import torsion_reference

__all__ = [
    "angle_filter",
    "envelope",
    "gated_sum",
    "gather",
    "linear",
    "linear_silu",
    "outer_sum",
    "radial_basis",
    "radial_filter",
    "row_chain",
    "segment_sum",
    "silu",
    "smooth_torsion",
    "spherical_bessel",
    "spherical_harmonics",
    "torsion_filter",
    "torsion_reference",
    "triplet_geometry",
]
