"""Molecular dynamics and relaxations in files: what ``spherenet-fast md`` and ``relax`` do, over ASE."""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .md import run_batch, run_dynamics
    from .relaxation import relax
    from .settings import Settings

__all__ = ["Settings", "relax", "run_batch", "run_dynamics"]
__getattr__, __dir__ = lazy_names(
    __name__, {"Settings": "settings", "relax": "relaxation", "run_batch": "md", "run_dynamics": "md"}
)
