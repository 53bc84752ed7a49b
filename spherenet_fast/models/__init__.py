"""Models over the operators of this package."""

from .dimenet import DimeNet
from .dimenet_plus_plus import DimeNetPlusPlus
from .physnet import PhysNet
from .schnet import SchNet
from .spherenet import SphereNet

# what configs and checkpoints know by name
MODELS = {model.__name__: model for model in (SphereNet, SchNet, PhysNet, DimeNet, DimeNetPlusPlus)}

__all__ = ["MODELS", *MODELS]
