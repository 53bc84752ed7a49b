"""The former place of `spherenet_fast.ops.reference`."""

import sys
import warnings

from .ops import reference

warnings.warn(
    "spherenet_fast.reference: deprecated, use spherenet_fast.ops.reference", DeprecationWarning, stacklevel=2
)
sys.modules[__name__] = reference
