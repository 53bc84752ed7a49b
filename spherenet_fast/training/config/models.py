"""The model section of a config: a dataclass made of a model's constructor."""

from copy import deepcopy
from dataclasses import dataclass, field, make_dataclass
from functools import cache, partial
from typing import Any, get_args, get_origin

from omegaconf import MISSING

from ...nn.framework import GraphNetwork3D
from ...nn.hparams import NEEDED, Argument, arguments
from .option import option


@dataclass
class ModelConfig:
    """What all models have; the number of outputs is the number of targets."""

    name: str = "SphereNet"


@cache
def model_section(model: type[GraphNetwork3D], name: str) -> type[ModelConfig]:
    """The section for `model`, which configs call `name`: its constructor's arguments, but for the outputs."""
    fields = [("name", str, option(name))]
    for key, argument in arguments(model).items():
        if key != "out_channels":
            fields.append((key, _type(argument), _field(argument)))
    return make_dataclass(f"{model.__name__}Config", fields, bases=(ModelConfig,))


def _type(argument: Argument) -> Any:
    """The argument's type if OmegaConf has a word for it, else Any."""
    kind, parts = argument.kind, get_args(argument.kind)
    if kind not in (int, float, bool, str) and not (get_origin(kind) in (list, dict) and {*parts} <= {int, float, str}):
        return Any
    return kind | None if argument.optional else kind


def _field(argument: Argument) -> Any:
    if isinstance(argument.default, (list, dict, set)):
        return field(default_factory=partial(deepcopy, argument.default))
    return option(MISSING if argument.default is NEEDED else argument.default, **argument.limits)
