"""Fields of a config with the limits of their values."""

from dataclasses import field
from typing import Any

LARGEST_COUNT = 2**31 - 1
LARGEST_SEED = 2**64 - 1  # of torch.manual_seed


def option(default: Any, **limits: Any) -> Any:
    """A field with limits (None always passes): choices=(...), or both ends of a range.

    Inclusive ends are low=... and high=..., exclusive ones above=... and below=... unit="minutes" is for readers.
    """
    return field(default=default, metadata=limits)


def count(default: int | None, low: int = 1, high: int = LARGEST_COUNT) -> Any:
    """A field for a whole number from `low` to `high`."""
    return option(default, low=low, high=high)
