"""The operators in readable PyTorch: the specification that the fused kernels are tested against.

Same names, signatures and results as in `spherenet_fast.ops`, which has the search for neighbors as well. Every
function follows its formula line by line, keeps whatever it likes per triplet, and is differentiated by plain autograd,
twice where the fused operator is. Square roots and quotients are guarded where an atom, its neighbor and the next one
lie on a line, so no derivative is ever NaN.
Under autocast everything runs in float32.
"""

from importlib import import_module
from inspect import isfunction
from pkgutil import iter_modules
from typing import Any


def __getattr__(name: str) -> Any:  # by which type checkers know that there are names which they do not see
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# every function of every module here, but private ones
for _module in [info.name for info in iter_modules(__path__) if info.name[0] != "_"]:
    for _name, _value in vars(import_module(f"{__name__}.{_module}")).items():
        if isfunction(_value) and _value.__module__ == f"{__name__}.{_module}" and _name[0] != "_":
            globals()[_name] = _value
