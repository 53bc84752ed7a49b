"""Trained models in simulation engines."""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .ase import SphereNetCalculator
    from .committee import Committee

__all__ = ["Committee", "SphereNetCalculator"]
__getattr__, __dir__ = lazy_names(__name__, {"Committee": "committee", "SphereNetCalculator": "ase"})
