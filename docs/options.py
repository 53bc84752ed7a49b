"""Every key of a config as tables: the sections' dataclasses, and the models' constructors."""

import ast
import dataclasses
import inspect
import re
import textwrap
from typing import Any, get_origin, get_type_hints

TECHNICAL_LIMITS = (2**31 - 1, 2**64 - 1)  # ranges that end there are open
FROM_TARGETS = "out_channels"  # no key: the number of targets
HEAD = "| key | type | default | allowed | |\n|---|---|---|---|---|"


def markdown() -> str:
    """One table for each section, and for the section `model` one for each model."""
    from spherenet_fast.models import MODELS
    from spherenet_fast.training.config import Config

    sections = get_type_hints(Config)
    parts = []
    for name, section in sections.items():
        if name == "model":
            parts.append(_title(name, "What is trained: the arguments of the constructor of the class `model.name`."))
            parts += [f"### `model.name: {key}`\n\n{model_table(model)}" for key, model in MODELS.items()]
        else:
            parts.append(f"{_title(name, inspect.getdoc(section))}\n\n{section_table(name, section)}")
    return "\n\n".join(parts) + "\n"


def _title(name: str, text: str | None) -> str:
    return f"## {name}\n\n{' '.join((text or '').split())}"


def section_table(name: str, section: type) -> str:
    """A line for each key of a section: its type, default value and limits, and the comment beside it."""
    hints, notes = get_type_hints(section), comments(section)
    lines = []
    for field in dataclasses.fields(section):
        if field.default is not dataclasses.MISSING:
            default = field.default
        else:
            default = field.default_factory() if field.default_factory is not dataclasses.MISSING else "???"
        shown = "required" if default == "???" else f"`{yaml(default)}`"
        cells = f"`{name}.{field.name}`", kind(hints[field.name]), shown, limits(field.metadata), notes[field.name]
        lines.append(row(cells))
    return "\n".join([HEAD, *lines])


def model_table(model: type) -> str:
    """A line for each argument of a model's constructor, with its entry in the docstring."""
    from spherenet_fast.models import MODELS

    # a model refers to another one for arguments of the same name
    notes = {name: text for other in (*MODELS.values(), model) for name, text in entries(inspect.getdoc(other)).items()}
    hints = get_type_hints(model.__init__, include_extras=True)
    lines = []
    for name, argument in inspect.signature(model).parameters.items():
        if name == FROM_TARGETS:
            continue
        type_name, found = stated(hints[name])
        cells = f"`model.{name}`", type_name, f"`{yaml(argument.default)}`", limits(found), notes.get(name, "")
        lines.append(row(cells))
    return "\n".join([HEAD, *lines])


def stated(hint: Any) -> tuple[str, dict[str, Any]]:
    """The type in words and the limits of an annotation: Annotated[int, Range(1, 8)], Literal["a", "b"] | None, ..."""
    from spherenet_fast.nn.hparams import NEEDED, argument_of

    argument = argument_of(NEEDED, hint)
    return kind(argument.kind) + " or null" * argument.optional, argument.limits


def row(cells) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("<", "\\<") for cell in cells) + " |"


def kind(hint: Any) -> str:
    """int | None as "int or null", list[str] as "list"."""
    if get_origin(hint) in (list, dict):
        return {list: "list", dict: "mapping"}[get_origin(hint)]
    text = hint.__name__ if isinstance(hint, type) and not hasattr(hint, "__args__") else str(hint)
    text = text.replace("typing.", "").replace("NoneType", "None").replace("None", "null")
    return text.replace(" | ", " or ")


def yaml(value: Any) -> str:
    """A default value as it would stand in a config."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def limits(found) -> str:
    """The choices, or the range in words: "1 to 100", "above 0, at most 1"."""
    if "choices" in found:
        return ", ".join(f"`{choice}`" for choice in found["choices"])
    low, high = found.get("low"), found.get("high")
    high = None if high in TECHNICAL_LIMITS else high
    if low is not None and high is not None:
        return f"{low:g} to {high:g}"
    words = {"low": "at least", "above": "above", "high": "at most", "below": "below"}
    ends = {"low": low, "above": found.get("above"), "high": high, "below": found.get("below")}
    return ", ".join(f"{words[end]} {value:g}" for end, value in ends.items() if value is not None)


def comments(section: type) -> dict[str, str]:
    """{field: the comments above and beside it} of a dataclass and those that it is derived from."""
    found: dict[str, str] = {}
    for base in reversed(section.__mro__):
        if dataclasses.is_dataclass(base):
            found |= _own_comments(textwrap.dedent(inspect.getsource(base)))
    return found


def _own_comments(source: str) -> dict[str, str]:
    lines = source.splitlines()
    found = {}
    for node in ast.parse(source).body[0].body:
        if not isinstance(node, ast.AnnAssign):
            continue
        first = node.lineno - 1
        above = []
        while first - 1 - len(above) >= 0 and lines[first - 1 - len(above)].lstrip().startswith("#"):
            above.insert(0, lines[first - 1 - len(above)].lstrip("# "))
        end = node.end_lineno - 1
        beside = lines[end].encode()[node.end_col_offset :].decode().strip()
        text = " ".join([*above, beside.lstrip("# ")]).strip()
        found[node.target.id] = text
    return found


def entries(docstring: str) -> dict[str, str]:
    """{argument: its text} of the section Args of a docstring; arguments that share a text each have it."""
    _, _, section = docstring.partition("Args:\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        match = re.match(r" {4}(\w[\w, ]*): +(.*)", line)
        if match:
            names = [name.strip() for name in match.group(1).split(",")]
            found |= {name: match.group(2) for name in names}
        elif line.startswith("     "):
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found
