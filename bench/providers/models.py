"""All models that are compared, by provider: this package's, PyTorch Geometric's and DIG's."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution

from torch import nn

from bench.providers import dig_models, pyg_models
from bench.providers.names import COMPARED
from spherenet_fast.models import DimeNet, DimeNetPlusPlus, PhysNet, SchNet, SphereNet

SPHERENETS = ("ours", "reference")
# The sizes of all are those of PyTorch Geometric's classes and of SphereNet's paper: DimeNet, whose messages stay wide
# where they meet the angles, has 6 blocks, the others of its kind have 4.
OWN: dict[str, Callable[[], nn.Module]] = {
    "no_torsion": lambda: SphereNet(use_torsion=False),
    "no_angle": lambda: SphereNet(use_torsion=False, use_angle=False),
    "dimenet++": DimeNetPlusPlus,
    "dimenet": DimeNet,
    "schnet": SchNet,
    "physnet": PhysNet,
}


def build(provider: str, num_spherical: int) -> nn.Module:
    """A model with random weights; num_spherical is obeyed by the full SphereNet, ours and DIG's, alone."""
    if provider in dig_models.NEEDS:
        return dig_models.build(num_spherical)
    if provider in pyg_models.NEEDS:
        return pyg_models.build(provider)
    if provider in OWN:
        return OWN[provider]()
    return SphereNet(num_spherical=num_spherical, kernels=provider != "reference")


def missing(provider: str) -> list[str]:
    """The packages that a provider needs and that are not installed here."""
    return [name for name in (pyg_models.NEEDS | dig_models.NEEDS).get(provider, ()) if not _is_installed(name)]


def _is_installed(package: str) -> bool:
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True


def takes_part(provider: str) -> bool:
    """Whether a provider is one of the case "models"."""
    return provider in COMPARED or provider in COMPARED.values()
