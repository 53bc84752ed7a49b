"""Hyper-parameters: a model's own arguments, whatever its classes and their constructors look like."""

import copy
import pickle
from dataclasses import dataclass

import numpy as np
import pytest
from molecules import SMALL

from spherenet_fast import SphereNet
from spherenet_fast.nn.framework import GraphNetwork3D


class WithKeywords(SphereNet):
    def __init__(self, factor: int = 2, **others):
        super().__init__(**others)
        self.factor = factor


class OfWithKeywords(WithKeywords):
    pass


class WithPositions(SphereNet):
    def __init__(self, *given, **named):
        super().__init__(*given, **SMALL | named)


class Mixin:
    def __init__(self, *given, mix: int = 1, cutoff: float = 4.0, **named):
        super().__init__(*given, cutoff=cutoff + 1, **named)
        self.mix = mix


class Mixed(Mixin, SphereNet):
    pass


class Nameless(GraphNetwork3D):
    def __init__(self, cutoff: float = 4.0, /):
        super().__init__(cutoff, 1)


@dataclass(eq=False)
class AsDataclass(GraphNetwork3D):
    width: int
    depth: int = 3

    def __post_init__(self):
        super().__init__(5.0, self.depth)


class ForTypeCheckers(GraphNetwork3D):
    def __init__(self, other: "Unknown", width: int = 2):  # noqa: F821  as if imported under TYPE_CHECKING
        super().__init__(5.0, 1)


class WithList(GraphNetwork3D):
    def __init__(self, sizes: list):
        super().__init__(5.0, 1)
        sizes.append(9)


OTHERS = {name: value for name, value in SMALL.items() if name != "cutoff"}


@pytest.mark.parametrize(
    "make",
    [
        lambda: SphereNet(**SMALL),
        lambda: SphereNet(3.5, **OTHERS),
        lambda: WithKeywords(factor=7, **SMALL),
        lambda: OfWithKeywords(7, **SMALL),
        lambda: WithPositions(hidden_channels=12),
        lambda: Mixed(mix=4, **OTHERS),
        lambda: Mixed(cutoff=2.0, **OTHERS),
        lambda: AsDataclass(8),
        lambda: WithList([1, 2]),
    ],
)
def test_hparams_make_the_same_model_again(make):
    model = make()
    twin = type(model)(**copy.deepcopy(model.hparams))
    assert twin.hparams == model.hparams and twin.cutoff == model.cutoff
    for name in ("factor", "mix", "width", "depth"):
        assert getattr(twin, name, None) == getattr(model, name, None)
    shapes = [{name: value.shape for name, value in each.state_dict().items()} for each in (model, twin)]
    assert shapes[0] == shapes[1]
    for copied in (copy.deepcopy(model), copy.copy(model), pickle.loads(pickle.dumps(model))):
        assert copied.hparams == model.hparams


def test_numbers_of_numpy_are_those_of_python():
    given = dict(cutoff=np.float32(4.5), num_layers=np.int64(1), kernels=np.bool_(False), envelope_exponent=np.uint8(6))
    model = SphereNet(**OTHERS | given)
    assert {name: model.hparams[name] for name in given} == given
    assert [type(model.hparams[name]) for name in given] == [float, int, bool, int]
    assert type(SphereNet(np.float64(3.5), **OTHERS).hparams["cutoff"]) is float
    with pytest.raises(TypeError, match="num_layers: expected an int, got 2.0"):
        SphereNet(num_layers=np.float64(2.0))


def test_an_unknown_annotation_does_not_drop_the_others():
    with pytest.raises(TypeError, match="width: expected an int, got 2.5"):
        ForTypeCheckers(None, width=2.5)
    assert ForTypeCheckers("anything", 3).hparams == {"other": "anything", "width": 3}


def test_arguments_without_a_name_are_refused():
    with pytest.raises(TypeError, match="WithPositions: expected arguments by name, as they go to its .args, got "):
        WithPositions(3.0)
    with pytest.raises(TypeError, match="Nameless: expected a constructor whose arguments all have names"):
        Nameless(3.0)


def test_what_is_not_an_argument_is_said_by_python():
    with pytest.raises(TypeError, match="unexpected keyword argument 'nothing'"):
        SphereNet(nothing=1)
