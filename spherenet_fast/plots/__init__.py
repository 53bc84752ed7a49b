"""Pictures of what SphereNet sees and has learned."""

from .bond import Surroundings, surroundings
from .energies import draw_energies
from .filters import draw_filters, torsion_filters
from .geometry import draw_geometry

__all__ = ["Surroundings", "draw_energies", "draw_filters", "draw_geometry", "surroundings", "torsion_filters"]
