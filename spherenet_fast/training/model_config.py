"""The model section of a config: a dataclass for every model, with its hyper-parameters."""

from dataclasses import dataclass

from .option import option

MODEL_NAMES = ("SphereNet", "SchNet", "PhysNet", "DimeNet", "DimeNetPlusPlus")


@dataclass
class ModelConfig:
    """What all models have; the number of outputs is the number of targets."""

    name: str = option("SphereNet", choices=MODEL_NAMES)
    cutoff: float = option(5.0, above=0)
    hidden_channels: int = option(128, low=1)
    max_num_neighbors: int | None = option(None, low=1)
    kernels: bool = True  # false: the readable PyTorch reference


@dataclass
class DirectionalConfig(ModelConfig):
    """What the models with messages between edges have in common."""

    num_spherical: int = option(7, low=1, high=8)
    num_radial: int = option(6, low=1, high=16)
    envelope_exponent: int = option(5, low=1)
    num_before_skip: int = option(1, low=0)
    num_after_skip: int = option(2, low=0)
    num_output_layers: int = option(3, low=0)
    basis: str = option("paper", choices=("paper", "released"))


@dataclass
class SphereNetConfig(DirectionalConfig):
    num_layers: int = option(4, low=1)
    int_emb_size: int = option(64, low=1)
    basis_emb_size_dist: int = option(8, low=1)
    basis_emb_size_angle: int = option(8, low=1)
    basis_emb_size_torsion: int = option(8, low=1)
    out_emb_channels: int = option(256, low=1)
    use_angle: bool = True
    torsion: str | None = option("smooth", choices=("smooth", "smooth_even", "paper"))
    use_torsion: bool = True  # false: torsion null


@dataclass
class SchNetConfig(ModelConfig):
    name: str = option("SchNet", choices=MODEL_NAMES)
    cutoff: float = option(10.0, above=0)
    num_interactions: int = option(6, low=1)
    num_filters: int = option(128, low=1)
    num_gaussians: int = option(50, low=2)


@dataclass
class PhysNetConfig(ModelConfig):
    name: str = option("PhysNet", choices=MODEL_NAMES)
    cutoff: float = option(10.0, above=0)
    num_blocks: int = option(5, low=1)
    num_gaussians: int = option(64, low=2)
    num_residual_interaction: int = option(3, low=0)
    num_residual_atomic: int = option(2, low=0)
    num_residual_output: int = option(1, low=0)


@dataclass
class DimeNetConfig(DirectionalConfig):
    name: str = option("DimeNet", choices=MODEL_NAMES)
    num_blocks: int = option(6, low=1)
    num_bilinear: int = option(8, low=1)


@dataclass
class DimeNetPlusPlusConfig(DirectionalConfig):
    name: str = option("DimeNetPlusPlus", choices=MODEL_NAMES)
    num_blocks: int = option(4, low=1)
    int_emb_size: int = option(64, low=1)
    basis_emb_size: int = option(8, low=1)
    out_emb_channels: int = option(256, low=1)


_CONFIGS = SphereNetConfig, SchNetConfig, PhysNetConfig, DimeNetConfig, DimeNetPlusPlusConfig
MODEL_CONFIGS: dict[str, type[ModelConfig]] = dict(zip(MODEL_NAMES, _CONFIGS, strict=True))
