"""What models are made of: the frame 3DGN, blocks, derivatives, and the checks of what a model is given."""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .framework import GraphNetwork3D, SphericalMessagePassing, System

__all__ = ["GraphNetwork3D", "SphericalMessagePassing", "System"]
__getattr__, __dir__ = lazy_names(__name__, dict.fromkeys(__all__, "framework"))
