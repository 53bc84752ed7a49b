"""Training on Lightning: configs, references, runs, checkpoints."""

from .config import Config
from .config_files import load_config
from .potential import Potential
from .run import train

__all__ = ["Config", "Potential", "load_config", "train"]
