"""Trained models as files that run without this package."""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .metatomic import export_metatomic
    from .pt2 import export_pt2, load_pt2

__all__ = ["export_metatomic", "export_pt2", "load_pt2"]
__getattr__, __dir__ = lazy_names(__name__, {"export_metatomic": "metatomic", "export_pt2": "pt2", "load_pt2": "pt2"})
