"""A config as a YAML file that explains itself: beside every value its meaning, type, limits and default."""

import textwrap
from typing import Any

import yaml

from ...models import MODELS
from .files import config_to_dict
from .reference import Key, parts
from .sections import Config

WIDTH = 110


def commented(config: Config, title: str) -> str:
    """The text of a YAML file that `load_config` reads as `config`, with every key explained.

    title: lines for the beginning.
    """
    explained = {(part.section, part.model): part for part in parts()}
    lines = [f"# {line}".rstrip() for line in title.splitlines()]
    for section, values in config_to_dict(config).items():
        part = explained.get((section, config.model.name if section == "model" else None))
        keys = {} if part is None else {key.name: key for key in part.keys}
        about = [] if part is None else textwrap.wrap(part.text.replace("`", ""), WIDTH)
        lines += ["", *(f"# {line}" for line in about), f"{section}:"]
        if section == "model":
            lines.append(f"  name: {_value(values.pop('name'))}  # {', '.join(MODELS)}, or the import path of a class")
        for name, value in values.items():
            lines += _lines(name, value, keys.get(name))
    return "\n".join(lines) + "\n"


def _lines(name: str, value: Any, key: Key | None) -> list[str]:
    """A key with its value, and what is said of it above and beside."""
    if key is None:
        return [f"  {name}: {_value(value)}"]
    above = [f"  # {line}" for line in textwrap.wrap(key.note.replace("`", ""), WIDTH)]
    return [*above, f"  {name}: {_value(value)}  # {key.facts}"]


def _value(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False)
    return text.removesuffix("...\n").strip()
