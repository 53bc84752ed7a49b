"""Names that configs once had: they are read as those of today, and a line says so."""

import sys
from typing import Any

from ...nn.hparams import OLD_VALUES

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
    for (name, old), new in OLD_VALUES.items():
        if isinstance(model, dict) and model.get(name) == old:
            if tell:
                _tell(f"config key 'model.{name}': {old!r}", repr(new))
            model = model | {name: new}
            sections = sections | {"model": model}
    return sections


def _tell(old: str, new: str) -> None:
    print(f"{old} is deprecated: {new} is its name", file=sys.stderr)
