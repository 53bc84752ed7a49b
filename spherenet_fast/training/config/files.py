"""Reading configs: YAML files and overrides into a checked `Config`, with errors that name the key."""

import dataclasses
import math
import operator
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from ...data.sources import SAMPLES
from ...data.units import unit_name
from ...models import find_model
from .models import model_section
from .old_names import OLD_CONFIGS, renamed_config, renamed_keys
from .sections import Config

YAML = (".yaml", ".yml")
CONFIGS = ("ethanol", "qm9", "slabs", "oc20", "paper_qm9", "paper_md17", "ablation")


def load_config(source, overrides: list[str] | None = None) -> Config:
    """Read a config and check it.

    A file may have a section `variants`, {name: sections}: several experiments that differ in a few keys. One of them
    is asked for with a colon, as "paper_md17:toluene", and overrides the file's own sections.

    Args:
        source: a path to a YAML file, or the name of a shipped config (one of `CONFIGS`); ":" and a variant.
        overrides: ``["training.max_steps=100", ...]``, applied last. Another model.name than the file's leaves out the
            file's model section: the model starts from its own default values.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no YAML mapping, the variant is unknown or missing, or a key is unknown, missing, of
            another type or out of range; the message names the key, what was expected and what came.
    """
    path, variant = _find(str(source), tell=True)
    data = f"; data goes into --set data.source={path}" if path.suffix.lower() not in YAML else ""
    known = [section.name for section in dataclasses.fields(Config)]
    try:
        given = OmegaConf.load(path)
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected a YAML file{data}, got {' '.join(str(error).split())}") from error
    if not isinstance(given, DictConfig):
        raise ValueError(f"{path}: expected sections {', '.join(known)}{data}, got a {type(given).__name__}")
    if data and not set(given) <= {*known, "variants"}:  # extended xyz is YAML: one key, as long as the file
        raise ValueError(f"{path}: expected a YAML file of sections {', '.join(known)}{data}, got other text")
    sections = given, _variant(path, given.pop("variants", None), variant)
    changes = [overriding(text) for text in overrides or []]
    name = _model_name([*sections, *changes])
    for number, part in enumerate(sections, 1):
        if _model_name(sections[:number]) != name:
            part.pop("model", None)
    return checked(*sections, *changes, tell=True)


def is_data(source) -> bool:
    """Whether `source` is data and no config: a data set's name, a folder, or a file that is no YAML file."""
    source = str(source)
    if source in CONFIGS or source in OLD_CONFIGS:
        return False
    path = Path(source).expanduser()
    return source in SAMPLES or source.startswith("pyg:") or (path.exists() and path.suffix.lower() not in YAML)


def run_name(source) -> str:
    """What a run of `source`, a config or data, is called: "ethanol", "paper_md17-toluene", "frames" of frames.xyz.

    Raises FileNotFoundError.
    """
    if is_data(source):
        name = str(source).removeprefix("pyg:").rstrip("/")
        return name.replace("/", "-") if str(source).startswith("pyg:") else Path(name).absolute().stem
    path, variant = _find(str(source))
    return path.stem if variant is None else f"{path.stem}-{variant}"


def variants(source) -> list[str]:
    """The names of the variants in the config `source`, given without one."""
    return list(OmegaConf.load(_find(str(source))[0]).get("variants", {}))


def _find(source: str, tell: bool = False) -> tuple[Path, str | None]:
    """The file of a config, and the variant after the colon if there is one."""
    before, _, variant = source.rpartition(":")
    for name, chosen in ((source, None), (before, variant)):
        name = name if Path(name).is_file() else renamed_config(name, tell)
        path = Path(str(files("spherenet_fast") / "configs" / f"{name}.yaml")) if name in CONFIGS else Path(name)
        if path.is_file():
            return path, chosen
    raise FileNotFoundError(f"config: expected a file or one of {', '.join(CONFIGS)}; there is no {source!r}")


def _variant(path: Path, known: DictConfig | None, name: str | None) -> DictConfig:
    """The sections of the variant `name`; an empty config for a file that has no variants and none was asked for."""
    if known is None and name is None:
        return OmegaConf.create({})
    if known is None:
        raise ValueError(f"config: expected {path} alone, as it has no variants, got ':{name}'")
    if not isinstance(known, DictConfig) or not all(isinstance(known[key], DictConfig) for key in known):
        raise ValueError(f"{path}: variants: expected names with sections data, model, ..., got {known!r}")
    if name not in known:
        names = ", ".join(f"{path.stem}:{key}" for key in known)
        raise ValueError(f"config: expected one of {names}, got {path.stem if name is None else f'{path.stem}:{name}'}")
    return known[name]


def config_from_dict(values: dict) -> Config:
    """The config that `config_to_dict` made `values` of. Raises like `load_config`."""
    return checked(OmegaConf.create(values))


def config_to_dict(config: Config) -> dict:
    """The config as nested dictionaries of numbers, strings and lists."""
    return dataclasses.asdict(config)


def overriding(text: str) -> DictConfig:
    """ "section.key=value" as a config."""
    try:
        if "=" in text:
            return OmegaConf.from_dotlist([text])
    except yaml.YAMLError as error:
        raise ValueError(f"--set: expected key=value with a value as in YAML, got {text!r}") from error
    raise ValueError(f"--set: expected key=value, got {text!r}")


def _model_name(parts) -> Any:
    """The model's name in the last of the parts that has one."""
    sections = [part.get("model") for part in parts]
    names = [section["name"] for section in sections if isinstance(section, (dict, DictConfig)) and "name" in section]
    return names[-1] if names else Config().model.name


def checked(*parts, tell: bool = False) -> Config:
    """The config of sections, later ones before earlier ones. Raises ValueError as `load_config`."""
    plain = [renamed_keys(OmegaConf.to_container(part, resolve=False), tell) for part in parts]
    name = _model_name(plain)
    try:
        model = find_model(name)
    except ValueError as error:
        raise ValueError(f"config key 'model.name': {error}") from error
    sections = get_type_hints(Config) | {"model": model_section(model, name)}
    _check_containers(plain, sections)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config(model=sections["model"]())), *plain)
        OmegaConf.resolve(merged)
    except OmegaConfBaseException as error:
        raise ValueError(_explain(error, plain, sections)) from error
    if OmegaConf.is_missing(merged.data, "source"):
        raise ValueError("config key 'data.source': expected a sample's name or a path, got nothing")
    for key in OmegaConf.missing_keys(merged):
        raise ValueError(f"config key {key!r}: expected a value, as it has no default, got nothing")
    config = OmegaConf.to_object(merged)
    for section in sections:
        values = getattr(config, section)
        for option in dataclasses.fields(values):
            _check_limits(f"{section}.{option.name}", getattr(values, option.name), option.metadata)
    try:
        model.check_hparams({key: value for key, value in vars(config.model).items() if key != "name"})
    except (TypeError, ValueError) as error:
        key, _, what = str(error).partition(": ")
        raise ValueError(f"config key 'model.{key}': {what}") from error
    _check_together(config)
    return config


def _explain(error: OmegaConfBaseException, parts, sections: dict[str, type]) -> str:
    key = str(error.full_key or error.key)
    if isinstance(error, (ConfigKeyError, ConfigAttributeError)):
        names = ", ".join(option.name for option in dataclasses.fields(error.object_type))
        return f"config key {key!r}: expected one of {names}; there is no such key"
    section, _, name = key.partition(".")
    option = name.split("[")[0].split(".")[0]
    given = [part[section][option] for part in parts if option in part.get(section, {})]
    return f"config key {key!r}: expected {_type_name(sections[section], option)}, got {given[-1] if given else None!r}"


def _type_name(section: type, option: str) -> str:
    expected = get_type_hints(section)[option]
    return str(expected).removeprefix("typing.") if get_args(expected) else expected.__name__


def _check_containers(parts, sections: dict[str, type]) -> None:
    """ValueError where a list or mapping stands for a number, or the other way round."""
    for part in parts:
        for section, values in part.items():
            if section not in sections:
                continue
            if not isinstance(values, dict):
                raise ValueError(f"config section {section!r}: expected keys and values, got {values!r}")
            hints = get_type_hints(sections[section])
            for option, value in values.items():
                expected = get_origin(hints.get(option))
                if option in hints and any((expected is kind) != isinstance(value, kind) for kind in (dict, list)):
                    name = _type_name(sections[section], option)
                    raise ValueError(f"config key '{section}.{option}': expected {name}, got {value!r}")


def _check_limits(key: str, value: Any, limits) -> None:
    if value is None or not limits:
        return
    if "choices" in limits and value not in limits["choices"]:
        raise ValueError(f"config key {key!r}: expected one of {', '.join(limits['choices'])}, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"config key {key!r}: expected a finite number, got {value}")
    wrong = {
        "low": ("at least", operator.lt), "above": ("more than", operator.le),
        "high": ("at most", operator.gt), "below": ("less than", operator.ge),
    }  # fmt: skip
    for end, (words, outside) in wrong.items():
        if end in limits and outside(value, limits[end]):
            raise ValueError(f"config key {key!r}: expected {words} {limits[end]}, got {value}")


def _check_together(config: Config) -> None:
    training, data = config.training, config.data
    if training.max_epochs is None and training.max_steps is None and training.max_time is None:
        raise ValueError("config keys 'training.max_epochs', 'max_steps', 'max_time': expected at least one, got none")
    if not data.targets:
        raise ValueError("config key 'data.targets': expected at least one name, got none")
    if data.forces and data.targets != ["energy"]:
        raise ValueError(
            f"config key 'data.targets': expected [energy] when data.forces is true, got {data.targets}; a file's "
            f"own name for the energy goes into data.keys={{energy: {data.targets[0]}}}"
        )
    known = [*data.targets, *(["energy"] if data.relaxations else ["forces", "stress"])]
    if unused := data.keys.keys() - set(known):
        raise ValueError(f"config key 'data.keys': expected some of {', '.join(known)}, got {', '.join(unused)}")
    if data.held_out and data.split is not None:
        raise ValueError(f"config key 'data.held_out': expected none where data.split says all, got {data.held_out}")
    if config.loss.stress_weight and not data.forces:
        raise ValueError("config key 'loss.stress_weight': expected 0 where data.forces is false, got more")
    weights = [config.loss.energy_weight, config.loss.stress_weight, config.loss.forces_weight if data.forces else 0]
    if not any(weights):
        raise ValueError("config keys 'loss.energy_weight', 'loss.forces_weight': expected one above 0, got 0 for all")
    for target, unit in data.units.items():
        try:
            unit_name(unit)
        except ValueError as error:
            raise ValueError(f"config key 'data.units.{target}': {error}") from None
