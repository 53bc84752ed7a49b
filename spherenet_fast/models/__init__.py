"""Models over the operators of this package."""

import os
import sys
from importlib import import_module

from ..nn.framework import GraphNetwork3D
from .dimenet import DimeNet
from .dimenet_plus_plus import DimeNetPlusPlus
from .physnet import PhysNet
from .schnet import SchNet
from .spherenet import SphereNet

# what configs and checkpoints know by name; any other model is known by its import path
MODELS = {model.__name__: model for model in (SphereNet, SchNet, PhysNet, DimeNet, DimeNetPlusPlus)}

__all__ = ["MODELS", "find_model", "model_name", *MODELS]


def find_model(name: str) -> type[GraphNetwork3D]:
    """The class of that name in `MODELS`, or of that import path: "my_package.MyNet" or "my_package.nets:MyNet".

    The module is imported, from the current folder before all others as with `python -m`, and so runs.

    Raises:
        ValueError: there is no such class, it cannot be imported, or it is no subclass of `GraphNetwork3D`.
    """
    words = name if isinstance(name, str) else ""
    if words in MODELS:
        return MODELS[words]
    path, _, attribute = words.rpartition(":" if ":" in words else ".")
    if not path or not attribute:
        known = ", ".join(MODELS)
        raise ValueError(f"expected one of {known}, or the import path of a class as my_package.MyNet, got {name!r}")
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.insert(0, os.getcwd())
    try:
        found = import_module(path)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:  # a module raises whatever it comes across
        why = f"{type(error).__name__}: {error}"
        if isinstance(error, ModuleNotFoundError) and error.name == path.partition(".")[0]:
            why += "; start in the folder that holds it, or set PYTHONPATH"
        raise ValueError(f"expected a class that can be imported, got {name!r}: {why}") from error
    if not (isinstance(found, type) and issubclass(found, GraphNetwork3D)):
        raise ValueError(f"expected a subclass of spherenet_fast.GraphNetwork3D, got {name!r}, which is {found!r}")
    return found


def model_name(model: type[GraphNetwork3D]) -> str:
    """The name under which `find_model` finds the class. Raises ValueError if it is made inside of a function."""
    name = model.__name__
    if MODELS.get(name) is model:
        return name
    if "<locals>" in model.__qualname__:
        known = ", ".join(MODELS)
        raise ValueError(f"model: expected one of {known}, or a class of a module, got {model.__qualname__}")
    return f"{model.__module__}:{model.__qualname__}" if "." in model.__qualname__ else f"{model.__module__}.{name}"
