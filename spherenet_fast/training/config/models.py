"""The model section of a config: a dataclass for every model, with its hyper-parameters."""

from dataclasses import dataclass
from typing import Any

from ...nn.ranges import MAX_NUM_NEIGHBORS, RANGES
from .option import count, option

MODEL_NAMES = ("SphereNet", "SchNet", "PhysNet", "DimeNet", "DimeNetPlusPlus")


def hparam(name: str, default: int) -> Any:
    """The field for a hyper-parameter that is a whole number, with the range that the models have for it."""
    return count(default, *RANGES[name])


@dataclass
class ModelConfig:
    """What all models have; the number of outputs is the number of targets."""

    name: str = option("SphereNet", choices=MODEL_NAMES)
    cutoff: float = option(5.0, low=1e-3, high=1000)  # Ang
    hidden_channels: int = hparam("hidden_channels", 128)
    max_num_neighbors: int | None = count(None, *MAX_NUM_NEIGHBORS)
    kernels: bool = True  # false: the readable PyTorch reference


@dataclass
class DirectionalConfig(ModelConfig):
    """What the models with messages between edges have in common."""

    num_spherical: int = hparam("num_spherical", 7)
    num_radial: int = hparam("num_radial", 6)
    envelope_exponent: int = hparam("envelope_exponent", 5)
    num_before_skip: int = hparam("num_before_skip", 1)
    num_after_skip: int = hparam("num_after_skip", 2)
    num_output_layers: int = hparam("num_output_layers", 3)
    basis: str = option("paper", choices=("paper", "released"))


@dataclass
class SphereNetConfig(DirectionalConfig):
    num_layers: int = hparam("num_layers", 4)
    int_emb_size: int = hparam("int_emb_size", 64)
    basis_emb_size_dist: int = hparam("basis_emb_size_dist", 8)
    basis_emb_size_angle: int = hparam("basis_emb_size_angle", 8)
    basis_emb_size_torsion: int = hparam("basis_emb_size_torsion", 8)
    out_emb_channels: int = hparam("out_emb_channels", 256)
    use_angle: bool = True
    torsion: str | None = option("smooth", choices=("smooth", "smooth_even", "paper"))
    use_torsion: bool = True  # false: torsion null


@dataclass
class SchNetConfig(ModelConfig):
    name: str = option("SchNet", choices=MODEL_NAMES)
    cutoff: float = option(10.0, low=1e-3, high=1000)  # Ang
    num_interactions: int = hparam("num_interactions", 6)
    num_filters: int = hparam("num_filters", 128)
    num_gaussians: int = hparam("num_gaussians", 50)


@dataclass
class PhysNetConfig(ModelConfig):
    name: str = option("PhysNet", choices=MODEL_NAMES)
    cutoff: float = option(10.0, low=1e-3, high=1000)  # Ang
    num_blocks: int = hparam("num_blocks", 5)
    num_gaussians: int = hparam("num_gaussians", 64)
    num_residual_interaction: int = hparam("num_residual_interaction", 3)
    num_residual_atomic: int = hparam("num_residual_atomic", 2)
    num_residual_output: int = hparam("num_residual_output", 1)


@dataclass
class DimeNetConfig(DirectionalConfig):
    name: str = option("DimeNet", choices=MODEL_NAMES)
    num_blocks: int = hparam("num_blocks", 6)
    num_bilinear: int = hparam("num_bilinear", 8)


@dataclass
class DimeNetPlusPlusConfig(DirectionalConfig):
    name: str = option("DimeNetPlusPlus", choices=MODEL_NAMES)
    num_blocks: int = hparam("num_blocks", 4)
    int_emb_size: int = hparam("int_emb_size", 64)
    basis_emb_size: int = hparam("basis_emb_size", 8)
    out_emb_channels: int = hparam("out_emb_channels", 256)


_CONFIGS = SphereNetConfig, SchNetConfig, PhysNetConfig, DimeNetConfig, DimeNetPlusPlusConfig
MODEL_CONFIGS: dict[str, type[ModelConfig]] = dict(zip(MODEL_NAMES, _CONFIGS, strict=True))
