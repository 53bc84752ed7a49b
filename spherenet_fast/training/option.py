"""Fields of a config with the limits of their values."""

from dataclasses import field
from typing import Any


def option(default: Any, **limits: Any) -> Any:
    """A field with limits: choices=(...), low=inclusive, above=exclusive, high=inclusive (None always passes)."""
    return field(default=default, metadata=limits)
