"""Training on Lightning: configs, normalization, runs, checkpoints."""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .config import Config
    from .config.files import load_config
    from .potential import Potential
    from .run import train

__all__ = ["Config", "Potential", "load_config", "train"]
__getattr__, __dir__ = lazy_names(
    __name__, {"Config": "config", "Potential": "potential", "load_config": "config.files", "train": "run"}
)
