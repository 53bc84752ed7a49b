"""The devices that this PyTorch can compute on, and the dtypes of models."""

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


def usable_dtype(dtype: str | torch.dtype, name: str = "dtype") -> torch.dtype:
    """`dtype`, or the one of that name. Raises ValueError, which calls the argument `name`, unless models have it."""
    found = {"float32": torch.float32, "float64": torch.float64}.get(str(dtype).removeprefix("torch."))
    if found is None:
        raise ValueError(f"{name}: expected float32 or float64, got {str(dtype)!r}")
    return found
