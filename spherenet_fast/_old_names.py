"""Names that modules and functions once had: they lead to the same, with a warning that gives the name to use."""

import sys
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

PACKAGE = __package__
OLD_NAMES = {
    "basis": "nn.basis",
    "blocks": "nn.blocks",
    "calculator": "calculators.ase",
    "capture": "cuda_graph",
    "framework": "nn.framework",
    "padding": "graph.padding",
    "pictures": "plots",
    "pictures.bond": "plots.bond",
    "pictures.files": "plots.files",
    "pictures.filters": "plots.filters",
    "pictures.geometry": "plots.geometry",
    "reference": "ops.reference",
}

OLD_PATHS = {f"{PACKAGE}.{old}": f"{PACKAGE}.{new}" for old, new in OLD_NAMES.items()}


class OldNames(MetaPathFinder, Loader):
    """The first of Python's finders, as a file found through the path of a moved package would be imported twice."""

    def find_spec(self, name: str, path=None, target=None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in OLD_PATHS else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        path = OLD_PATHS[spec.name]
        module = import_module(path)
        _warn(f"{spec.name} is deprecated: import {path} instead")
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = module.__spec__.loader_state  # the import system has put that of the old name there


def old_functions(package: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """`__getattr__` for a package whose functions have other names today. names: {old: name}."""

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        _warn(f"{package}.{name} is deprecated: use {names[name]} instead")
        return getattr(sys.modules[package], names[name])

    return find


def _warn(message: str) -> None:
    """A DeprecationWarning for the line that has the old name, below the frames of the import system."""
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in (PACKAGE, "importlib"):
        frame = frame.f_back
    warnings.warn_explicit(
        message, DeprecationWarning, frame.f_code.co_filename, frame.f_lineno, frame.f_globals.get("__name__")
    )
