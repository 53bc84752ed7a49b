"""Every number in a config and every hyper-parameter has a range, and the message names its key."""

import dataclasses
import math
import re
from typing import get_args, get_type_hints

import pytest
from training_runs import tiny_config, untrained

from spherenet_fast.models import MODELS
from spherenet_fast.nn.hparams import arguments
from spherenet_fast.training import Config, load_config
from spherenet_fast.training.config.files import config_from_dict, config_to_dict, run_name
from spherenet_fast.training.config.models import model_section

SECTIONS = [(section, kind) for section, kind in get_type_hints(Config).items() if section != "model"]
SECTIONS += [("model", model_section(model, name)) for name, model in MODELS.items()]


def numbers(kind):
    """(field, its type) of the numbers in a section."""
    for field in dataclasses.fields(kind):
        hint = get_type_hints(kind)[field.name]
        for number in (int, float):
            if hint is number or number in get_args(hint):
                yield field, number


NUMBERS = [(section, kind, field, number) for section, kind in SECTIONS for field, number in numbers(kind)]


def load(section, kind, key, value):
    name = [f"model.name={kind().name}"] if section == "model" else []
    return load_config("ethanol", [*name, f"{section}.{key}={value!r}"])


def beside(value, number, direction):
    """The number next to `value`, above it (1) or below it (-1)."""
    return value + direction if number is int else math.nextafter(value, direction * math.inf)


def ends(limits, number):
    """The last value within a range and the first beyond it, at both ends."""
    for inclusive, exclusive, outward in (("low", "above", -1), ("high", "below", 1)):
        if inclusive in limits:
            yield number(limits[inclusive]), beside(limits[inclusive], number, outward)
        else:
            yield beside(limits[exclusive], number, -outward), number(limits[exclusive])


@pytest.mark.parametrize(
    ("section", "kind", "field", "number"), NUMBERS, ids=[f"{kind.__name__}.{f.name}" for _, kind, f, _ in NUMBERS]
)
def test_every_number_of_a_config_has_both_ends(section, kind, field, number):
    for inside, outside in ends(field.metadata, number):
        config = load(section, kind, field.name, inside)
        assert getattr(getattr(config, section), field.name) == inside
        expected = f"^config key '{section}.{field.name}': expected .*, got {re.escape(str(outside))}$"
        with pytest.raises(ValueError, match=expected):
            load(section, kind, field.name, outside)


@pytest.mark.parametrize("name", MODELS)
def test_every_whole_hyper_parameter_has_both_ends(name):
    defaults = MODELS[name]().hparams
    whole = [key for key, value in defaults.items() if type(value) is int]
    for key in [*whole, "max_num_neighbors"]:
        low, high = arguments(MODELS[name])[key].limits.values()
        for value in (low - 1, high + 1):
            with pytest.raises(ValueError, match=f"^{key}: expected {low} to {high}.*, got {value}$"):
                MODELS[name](**{key: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss__energy_weight": 0, "loss__forces_weight": 0}, "'loss.energy_weight', .* expected one above 0"),
        ({"loss__energy_weight": 0, "data__forces": False}, "'loss.energy_weight', .* expected one above 0"),
        ({"data__units": "{energy: parsec}"}, "'data.units.energy': unit: expected one of eV, .* got 'parsec'"),
        ({"model__use_angle": False}, "'model.torsion': expected None where use_angle is False, got 'smooth_even'"),
    ],
)
def test_values_that_do_not_go_together_are_named(changes, message):
    with pytest.raises(ValueError, match=f"^config keys? {message}"):
        tiny_config(**changes)


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [("data.within", "data.ewt_threshold", 0.5), ("training.mirror", "training.augment_reflections", False)],
)
def test_old_keys_are_read_and_a_line_says_so(old, new, value, capsys):
    config = load_config("slabs", [f"{new}={value}"])
    assert capsys.readouterr().err == ""
    assert load_config("slabs", [f"{old}={value}"]) == config
    assert capsys.readouterr().err == f"config key '{old}' is deprecated: '{new}' is its name\n"
    values = config_to_dict(config)
    (section, key), new = old.split("."), new.partition(".")[2]
    values[section][key] = values[section].pop(new)
    assert config_from_dict(values) == config and capsys.readouterr().err == ""  # of a checkpoint, which stays as it is
    values[section][new] = value
    with pytest.raises(ValueError, match=f"config key '{old}': expected its name of today, {new}, alone, got both"):
        config_from_dict(values)


def test_an_old_config_name_is_read_and_a_line_says_so(capsys):
    assert load_config("is2re") == load_config("slabs") and run_name("slabs") == "slabs"
    assert capsys.readouterr().err == "config 'is2re' is deprecated: 'slabs' is its name\n"


def test_a_potential_of_a_config_with_old_keys_knows_its_threshold():
    potential = untrained(data__ewt_threshold=0.5)[0]
    potential.config["data"]["within"] = potential.config["data"].pop("ewt_threshold")
    assert potential.ewt_threshold == 0.5
