"""The devices that this PyTorch can compute on."""

import torch


def usable_device(device: str | torch.device, name: str = "device") -> torch.device:
    """`device`, if PyTorch can compute there in float64, as energies are, and bring back the result.

    Raises ValueError, which calls the argument `name`.
    """
    try:
        torch.zeros(1, dtype=torch.float64, device=device).item()
    except (RuntimeError, AssertionError, ImportError, AttributeError, TypeError) as error:
        text = f"expected a device that PyTorch can compute on here, in float64, got {str(device)!r}"
        raise ValueError(f"{name}: {text}") from error
    return torch.device(device)
