"""Names that configs once had: they are read as those of today, and a line says so."""

import sys
from typing import Any

from ...nn.hparams import former, of_today

OLD_CONFIGS = {"is2re": "slabs"}
OLD_KEYS = {
    ("data", "within"): "ewt_threshold",
    ("training", "mirror"): "augment_reflections",
}


def renamed_config(name: str, tell: bool = False) -> str:
    """The name of a shipped config."""
    if tell and name in OLD_CONFIGS:
        _tell(f"config {name!r}", repr(OLD_CONFIGS[name]))
    return OLD_CONFIGS.get(name, name)


def renamed_keys(sections: dict[str, Any], tell: bool = False) -> dict[str, Any]:
    """`sections` with the names of today. Raises ValueError where a key has a value under both of its names."""
    for (section, old), new in OLD_KEYS.items():
        values = sections.get(section)
        if not isinstance(values, dict) or old not in values:
            continue
        if new in values:
            raise ValueError(f"config key '{section}.{old}': expected its name of today, {new}, alone, got both")
        if tell:
            _tell(f"config key '{section}.{old}'", f"'{section}.{new}'")
        sections = sections | {section: {new if key == old else key: value for key, value in values.items()}}
    model = sections.get("model")
    if not isinstance(model, dict):
        return sections
    for name, new in former(model).items() if tell else ():
        _tell(f"config key 'model.{name}': {model[name]!r}", repr(new))
    return sections | {"model": of_today(model)}


def _tell(old: str, new: str) -> None:
    print(f"{old} is deprecated: {new} is its name", file=sys.stderr)
