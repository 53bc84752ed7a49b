"""Models over the operators of this package."""

from .spherenet import SphereNet

__all__ = ["SphereNet"]
