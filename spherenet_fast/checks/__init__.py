"""Whether a trained potential is fit for use: what ``spherenet-fast check`` measures."""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .potential import Checked, Limits, check_potential

__all__ = ["Checked", "Limits", "check_potential"]
__getattr__, __dir__ = lazy_names(__name__, dict.fromkeys(__all__, "potential"))
