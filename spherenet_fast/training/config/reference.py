"""Every key of a config with its type, default, limits and meaning: of the sections' dataclasses, and the models'."""

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any, NamedTuple, get_origin, get_type_hints

from ...models import MODELS
from ...nn.hparams import NEEDED, argument_of
from .sections import Config

TECHNICAL_LIMITS = (2**31 - 1, 2**64 - 1)  # ranges that end there are open
FROM_TARGETS = "out_channels"  # no key: the number of targets
HEAD = "| key | type | default | allowed | |\n|---|---|---|---|---|"
OF_MODELS = "What is trained: the arguments of the constructor of the class `model.name`."
WIDTH = 100


class Key(NamedTuple):
    """A key of a config."""

    section: str
    name: str
    kind: str  # its type, and its unit where it has one
    default: str  # as in YAML; "required"
    allowed: str  # choices, or a range in words
    note: str

    @property
    def facts(self) -> str:
        """Type, default and what is allowed, as one text."""
        default = self.default if self.default == "required" else f"default {self.default}"
        return "; ".join(part for part in (self.kind, self.allowed.replace("`", ""), default) if part)


class Part(NamedTuple):
    """Keys that belong together: those of a section, or of a model."""

    section: str
    model: str | None  # `model.name`, in the section "model"
    text: str
    keys: tuple[Key, ...]


def parts() -> Iterator[Part]:
    """All keys: one part for each section, and for the section `model` one for each model."""
    for name, section in get_type_hints(Config).items():
        if name != "model":
            text = " ".join((inspect.getdoc(section) or "").split())
            yield Part(name, None, text, section_keys(name, section))
            continue
        for key, model in MODELS.items():
            yield Part(name, key, OF_MODELS, model_keys(model))


def markdown() -> str:
    """All keys as tables."""
    lines, last = [], None
    for part in parts():
        if part.section != last:
            lines.append(f"## {part.section}\n\n{part.text}")
        last = part.section
        lines += [f"### `model.name: {part.model}`"] if part.model else []
        lines.append("\n".join([HEAD, *map(_row, part.keys)]))
    return "\n\n".join(lines) + "\n"


def plain_text(begins: str = "") -> str:
    """The keys that begin with `begins` ("training", "data.keys") as text; of the model "model:SchNet" alone, too.

    Raises:
        ValueError: no key begins so.
    """
    wanted, _, model = begins.partition(":")
    lines = []
    for part in parts():
        keys = [key for key in part.keys if f"{key.section}.{key.name}".startswith(wanted)]
        if not keys or (model and part.model != model):
            continue
        lines.append(f"{part.section} (model.name: {part.model})" if part.model else part.section)
        lines += [*textwrap.wrap(part.text.replace("`", ""), WIDTH), ""]
        for key in keys:
            lines.append(f"  {key.section}.{key.name}: {key.facts}")
            lines += textwrap.wrap(key.note.replace("`", ""), WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
        lines.append("")
    if not lines:
        sections = ", ".join(dict.fromkeys(part.section for part in parts()))
        raise ValueError(
            f"NAME: expected the beginning of a key, as {sections}, or model:SchNet (one of {', '.join(MODELS)}), "
            f"got {begins!r}"
        )
    return "\n".join(lines)


def section_keys(name: str, section: type) -> tuple[Key, ...]:
    """The keys of a section: type, default value and limits, and the comment beside each field."""
    hints, notes = get_type_hints(section), comments(section)
    found = []
    for field in dataclasses.fields(section):
        if field.default is not dataclasses.MISSING:
            default = field.default
        else:
            default = field.default_factory() if field.default_factory is not dataclasses.MISSING else "???"
        unit = f", {field.metadata['unit']}" if "unit" in field.metadata else ""
        shown = "required" if default == "???" else yaml(default)
        found.append(
            Key(name, field.name, kind(hints[field.name]) + unit, shown, limits(field.metadata), notes[field.name])
        )
    return tuple(found)


def model_keys(model: type) -> tuple[Key, ...]:
    """The arguments of a model's constructor, each with its entry in the docstring."""
    # a model refers to another one for arguments of the same name
    notes = {name: text for other in (*MODELS.values(), model) for name, text in entries(inspect.getdoc(other)).items()}
    hints = get_type_hints(model.__init__, include_extras=True)
    found = []
    for name, argument in inspect.signature(model).parameters.items():
        if name != FROM_TARGETS:
            type_name, ends = stated(hints[name])
            found.append(Key("model", name, type_name, yaml(argument.default), limits(ends), notes.get(name, "")))
    return tuple(found)


def stated(hint: Any) -> tuple[str, dict[str, Any]]:
    """The type in words and the limits of an annotation: Annotated[int, Range(1, 8)], Literal["a", "b"] | None, ..."""
    argument = argument_of(NEEDED, hint)
    return kind(argument.kind) + " or null" * argument.optional, argument.limits


def _row(key: Key) -> str:
    default = key.default if key.default == "required" else f"`{key.default}`"
    cells = f"`{key.section}.{key.name}`", key.kind, default, key.allowed, key.note
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
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
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
