"""Hyper-parameters: the arguments of a model's constructor, whose names, types and defaults are stated nowhere else."""

import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import copy
from functools import cache, wraps
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import numpy as np

from .ranges import Range

NEEDED = inspect.Parameter.empty  # the default of an argument without one
_KINDS = {int: "an int", float: "a number", bool: "True or False", str: "a string"}
OLD_VALUES = {("basis", "released"): "dig"}  # {(name, value of earlier versions): the value of today}
_VARIABLE = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD


class Argument(NamedTuple):
    """What a constructor says of an argument."""

    default: Any  # or NEEDED
    kind: Any  # int, float, bool, str, another type, or Any
    optional: bool  # may be None
    limits: dict[str, Any]  # "low" and "high" of an annotation with a `Range`, "choices" of a Literal, or none


@cache
def arguments(model: type) -> dict[str, Argument]:
    """{name: argument} of the constructor of `model`, and of its base's where it has **kwargs to pass on."""
    found: dict[str, Argument] = {}
    for base in model.__mro__:
        if "__init__" not in vars(base):
            continue
        _, *parameters = inspect.signature(base.__init__).parameters.values()
        hints = _hints(base.__init__)
        for parameter in parameters:
            if parameter.kind not in _VARIABLE:
                found.setdefault(parameter.name, argument_of(parameter.default, hints.get(parameter.name, Any)))
        if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            break
    return found


def check_arguments(model: type, hparams: Mapping[str, Any]) -> None:
    """Raise ValueError, or TypeError for a wrong type, naming the first of `hparams` that its annotation excludes."""
    for name, argument in arguments(model).items():
        if name in hparams and not (argument.optional and hparams[name] is None):
            _check(name, hparams[name], argument)


def hparams_of(model: type, given: tuple, named: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call of `model` by name, with defaults: `model(**hparams)` is that call again.

    Empty where the call does not fit the constructor, which then says what is wrong. Raises TypeError for arguments
    that have no name.
    """
    kinds = [parameter.kind for parameter in inspect.signature(model.__init__).parameters.values()]
    if inspect.Parameter.POSITIONAL_ONLY in kinds:
        raise TypeError(f"{model.__name__}: expected a constructor whose arguments all have names, got positional ones")
    hparams, nameless = _by_name(model.__init__, given, of_today(named))
    if nameless:
        raise TypeError(f"{model.__name__}: expected arguments by name, as they go to its *args, got {nameless}")
    return {
        name: copy(value) if isinstance(value, list | dict | set) else plain(value) for name, value in hparams.items()
    }


class Recorded:
    """Has the arguments of its constructor's call as `hparams`, whatever subclasses and mixins there are.

    A base of its own, before others: `inspect.signature` of a class prefers a `__new__` to the `__init__` beside it.
    """

    hparams: dict[str, Any]

    def __new__(cls, *given: Any, **named: Any):
        instance = super().__new__(cls)
        vars(instance)["hparams"] = hparams_of(cls, given, named)
        return instance


def checked(model: type, constructor: Callable) -> Callable:
    """`constructor` of `model`, which takes values of earlier versions, too, and checks its arguments."""

    @wraps(constructor)
    def construct(self, *given, **named):
        for name, value in former(named).items():
            warnings.warn(f'{name}="{named[name]}" is deprecated: use "{value}"', DeprecationWarning, stacklevel=2)
        given, named = tuple(map(plain, given)), {name: plain(value) for name, value in of_today(named).items()}
        model.check_hparams(_by_name(constructor, given, named)[0])
        constructor(self, *given, **named)

    return construct


def _by_name(constructor: Callable, given: tuple, named: Mapping[str, Any]) -> tuple[dict[str, Any], tuple]:
    """Arguments of a call by name, with defaults, and those that went to its *args; none where it does not fit."""
    signature = inspect.signature(constructor)
    try:
        bound = signature.bind(None, *given, **named)  # None: self
    except TypeError:
        return {}, ()
    bound.apply_defaults()
    hparams, nameless = {}, ()
    for name, parameter in list(signature.parameters.items())[1:]:
        value = bound.arguments[name]
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            nameless = value
        else:
            hparams |= value if parameter.kind is inspect.Parameter.VAR_KEYWORD else {name: value}
    return hparams, nameless


def former(hparams: Mapping[str, Any]) -> dict[str, str]:
    """{name: value of today} of those of `hparams` whose value is one of earlier versions."""
    return {
        name: value
        for (name, old), value in OLD_VALUES.items()
        if isinstance(hparams.get(name), str) and hparams[name] == old
    }


def of_today(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """`hparams` with the values of today."""
    return {**hparams, **former(hparams)}


def plain(value: Any) -> Any:
    """Python's own number for a scalar of NumPy; anything else as it is."""
    for kind, own in ((np.bool_, bool), (np.integer, int), (np.floating, float)):
        if isinstance(value, kind):
            return own(value)
    return value


def _hints(constructor: Callable) -> dict[str, Any]:
    """{name: annotation}, without those of types that are imported for type checkers alone."""
    found: dict[str, Any] = {}
    names = getattr(inspect.unwrap(constructor), "__globals__", {})
    for name, hint in getattr(constructor, "__annotations__", {}).items():
        with suppress(NameError):
            found |= get_type_hints(SimpleNamespace(__annotations__={name: hint}), names, include_extras=True)
    return found


def argument_of(default: Any, hint: Any) -> Argument:
    """What a default value and an annotation say of an argument."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    optional = default is None or NoneType in kinds
    kinds = [kind for kind in kinds if kind is not NoneType]
    kind, limits = (kinds[0] if len(kinds) == 1 else Any), {}
    if get_origin(kind) is Annotated:
        kind, *notes = get_args(kind)
        limits = next((note._asdict() for note in notes if isinstance(note, Range)), {})
    if get_origin(kind) is Literal:
        limits = {"choices": get_args(kind)}
        kind = type(limits["choices"][0])
    return Argument(default, kind, optional, limits)


def _check(name: str, value: Any, argument: Argument) -> None:
    or_none = " or None" if argument.optional else ""
    low, high = (argument.limits.get(end) for end in ("low", "high"))
    if "choices" in argument.limits:
        if value not in argument.limits["choices"]:
            *words, last = [f'"{choice}"' for choice in argument.limits["choices"]] + ["None"] * argument.optional
            raise ValueError(f"{name}: expected {', '.join(words)} or {last}, got {value!r}")
        return
    if argument.kind in _KINDS:
        kinds = (int, float) if argument.kind is float else argument.kind
        if not isinstance(value, kinds) or isinstance(value, bool) is not (argument.kind is bool):
            raise TypeError(f"{name}: expected {_KINDS[argument.kind]}{or_none}, got {value!r}")
    if low is None:
        return
    if argument.kind is float and low > 0 and not 0 < value < math.inf:
        raise ValueError(f"{name}: expected a positive number, got {value}")
    if argument.kind is float and value > high:
        raise ValueError(f"{name}: expected at most {high:g}, got {value}")
    if not low <= value <= high:
        raise ValueError(f"{name}: expected {low} to {high}{or_none}, got {value}")
