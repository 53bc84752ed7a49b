"""Full precision under autocast."""

import functools

import torch
from torch import Tensor


def full_precision(operator):
    """Under autocast, run `operator` on float32 copies of its floating-point arguments, without autocast."""

    @functools.wraps(operator)
    def wrapped(*args, **kwargs):
        device = args[0].device.type
        if not torch.is_autocast_enabled(device):
            return operator(*args, **kwargs)

        def cast(value):
            return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value

        with torch.autocast(device, enabled=False):
            return operator(*map(cast, args), **{name: cast(value) for name, value in kwargs.items()})

    return wrapped
