"""Pictures of what SphereNet sees and has learned, and of how well."""

from .bond import Surroundings, surroundings
from .energies import draw_energies
from .errors import Compared, draw_errors
from .filters import draw_filters, torsion_filters
from .geometry import draw_geometry

__all__ = [
    "Compared",
    "Surroundings",
    "draw_energies",
    "draw_errors",
    "draw_filters",
    "draw_geometry",
    "surroundings",
    "torsion_filters",
]
