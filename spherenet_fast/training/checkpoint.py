"""Reading checkpoints: damaged, foreign and changed ones are refused before anything is made of them."""

import hashlib
import warnings
import zipfile
from collections.abc import Mapping
from io import BytesIO

import torch
from torch import Tensor

from ..models import find_model
from ..nn.framework import GraphNetwork3D
from ..nn.ranges import MAX_ATOMIC_NUMBER
from ..pretrained import advice, checkpoint_file
from .normalization import check_normalization

FORMAT = "spherenet_fast potential 1"


def serialized(state: dict) -> bytes:
    """`state` as the bytes of a checkpoint file."""
    buffer = BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def read_checkpoint(path) -> dict:
    """The dictionary in a checkpoint, every byte of its contents checked; runs no code from it.

    Weights that are stored as float16 are returned as float32.

    Args:
        path: of a file, a name of pretrained weights, or hf://...: see `spherenet_fast.pretrained.checkpoint_file`.

    Raises:
        FileNotFoundError: there is no such file.
        PermissionError: it may not be read.
        OSError: a download has failed.
        ValueError: the file is empty, truncated, damaged, or no checkpoint; see `checkpoint_file`.
    """
    path = checkpoint_file(path)
    if path.is_dir():
        best = "; it has a best.ckpt" if (path / "best.ckpt").is_file() else ""
        raise ValueError(f"{path}: expected the file of a checkpoint, got a folder{best}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint{advice(path)}")
    try:
        with zipfile.ZipFile(path) as archive:  # of which torch.load would not compare the check sums
            damaged = archive.testzip()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*looks like a TorchScript archive")  # the error says enough
            state = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except Exception as error:  # a file of any content: zipfile and the unpickler raise whatever they come across
        raise ValueError(
            f"{path}: expected a checkpoint of spherenet_fast; it is empty, truncated or another file"
        ) from error
    if damaged:
        raise ValueError(f"{path}: expected a checkpoint as it was written; it is damaged (in {damaged})")
    if not isinstance(state, dict):
        raise ValueError(f"{path}: expected a checkpoint of spherenet_fast, got a {type(state).__name__}")
    for part in (state, state.get("potential")):
        if isinstance(part, dict) and "normalisation" in part:  # as checkpoints from before the release spell it
            part["normalization"] = part.pop("normalisation")
        if isinstance(part, dict) and isinstance(part.get("weights"), dict):
            part["weights"] = {name: _widened(weight) for name, weight in part["weights"].items()}
    return state


def _widened(weight):
    return weight.float() if isinstance(weight, Tensor) and weight.dtype == torch.float16 else weight


def digest(weights: Mapping[str, Tensor], normalization: Mapping[str, Tensor]) -> str:
    """SHA-256 over the names, dtypes, shapes and bytes of all tensors, in the order of their names."""
    total = hashlib.sha256()
    for group, tensors in (("weights", weights), ("normalisation", normalization)):  # spelled as in all digests so far
        for name in sorted(tensors):
            tensor = tensors[name].detach().cpu().contiguous()
            total.update(f"{group} {name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            total.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()


def check_state(state: dict) -> None:
    """See that `state` is what `Potential.state` returns; a digest is compared where there is one.

    Raises:
        ValueError: an entry is missing or of another kind, a number is not finite, or the weights are not those that
            were written.
    """
    for name, (kind, words) in _ENTRIES.items():
        if name not in state or not isinstance(state[name], kind):
            came = f"a {type(state[name]).__name__}" if name in state else "none"
            raise ValueError(f"{name}: expected {words}, got {came}")
    _check_tensors("weights", state["weights"])
    if not any(tensor.is_floating_point() for tensor in state["weights"].values()):
        raise ValueError("weights: expected tensors of numbers, got none")
    _check_tensors("normalization", state["normalization"])
    if sorted(state["normalization"]) != ["elements", "scale", "shift"]:
        raise ValueError(f"normalization: expected elements, shift, scale, got {', '.join(state['normalization'])}")
    _check_words("names", state["names"], (str,))
    _check_words("units", state["units"], (str, type(None)))
    check_normalization(state["names"], state["units"], **state["normalization"])
    for z in state["elements"] or ():
        if not isinstance(z, int) or not 0 < z <= MAX_ATOMIC_NUMBER:
            raise ValueError(f"elements: expected atomic numbers 1 to {MAX_ATOMIC_NUMBER}, got {z!r}")
    config = {"data": {}} if state["config"] is None else state["config"]
    if "data" not in config or not all(isinstance(section, dict) for section in config.values()):
        raise ValueError("config: expected a section data, and keys and values in every section, got others")
    if "digest" in state and state["digest"] != digest(state["weights"], state["normalization"]):
        raise ValueError("weights: expected those of the digest beside them, got others: the checkpoint is damaged")


# what `Potential.state` returns beside the format, the model's name and the digest, which older checkpoints lack
_ENTRIES = {
    "hparams": (dict, "a dictionary"),
    "names": ((list, tuple), "a list of names"),
    "units": ((list, tuple), "a list of units"),
    "forces": (bool, "true or false"),
    "elements": ((list, tuple, type(None)), "a list of atomic numbers"),
    "config": ((dict, type(None)), "a dictionary"),
    "normalization": (dict, "a dictionary of tensors"),
    "weights": (dict, "a dictionary of tensors"),
}


_DTYPES = (torch.float32, torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool)


def _check_words(key: str, values, kinds: tuple[type, ...]) -> None:
    for value in values:
        if not isinstance(value, kinds):
            raise ValueError(f"{key}: expected words, got {value!r}")


def _check_tensors(key: str, tensors: dict) -> None:
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ValueError(f"{key}: expected names with tensors, got {name!r} with a {type(tensor).__name__}")
        if tensor.layout != torch.strided or tensor.is_meta or tensor.dtype not in _DTYPES:
            raise ValueError(f"{key}: {name}: expected float32 or float64, or whole numbers, got {tensor.dtype}")
        if not tensor.isfinite().all():
            raise ValueError(f"{key}: {name}: expected finite numbers, got others")


def stated(model: type[GraphNetwork3D], hparams: dict) -> dict:
    """The hyper-parameters of a checkpoint, with those that the model did not have when it was written."""
    return {**vars(model).get("unstated", {}), **hparams}


def rebuilt_model(name, hparams: dict, weights: dict[str, Tensor]) -> GraphNetwork3D:
    """The model `name` with `weights`. Raises ValueError."""
    try:
        kind = find_model(name)
    except ValueError as error:
        raise ValueError(f"model: {error}") from error
    hparams = stated(kind, hparams)
    try:
        with torch.device("meta"):  # no memory for sizes that are not those of the weights
            _check_shapes(kind(**hparams), weights)
    except _Misfit:
        raise
    except Exception:  # a class may not do without numbers; what is wrong with hparams shows below
        pass
    try:
        model = kind(**hparams)
    except Exception as error:  # constructors raise whatever they come across
        raise _Misfit(f"hparams: {' '.join(str(error).split())}") from error
    _check_shapes(model, weights)
    model.to(next(tensor.dtype for tensor in weights.values() if tensor.is_floating_point()))
    model.load_state_dict(weights)
    return model


class _Misfit(ValueError):
    def __init__(self, what: str):
        super().__init__(f"the checkpoint does not fit this version of the models: {what}")


def _check_shapes(model: GraphNetwork3D, weights: dict[str, Tensor]) -> None:
    own = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
    came = {model.renamed_weights.get(key, key): list(tensor.shape) for key, tensor in weights.items()}
    for key in sorted(own.keys() | came.keys()):
        if own.get(key) != came.get(key):
            raise _Misfit(f"{key}: expected {own.get(key, 'none')}, got {came.get(key, 'none')}")
