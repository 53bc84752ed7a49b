"""Docstrings, written to be read as they are, as reStructuredText: formulas stay literal, * and | are no markup."""

import re

_SECTION = re.compile(r"(Args|Returns|Raises|Attributes|Example|Examples|Note|Yields)::?$")
_ENTRY = re.compile(r" {4}(?! )[\w*, ]+(\(.*\))?: ")
_CODE = re.compile(r"(``.*?``|`[^`]*`)")


def as_restructured_text(app, what, name, obj, options, lines: list[str]) -> None:
    """For the event autodoc-process-docstring: changes `lines` in place, before napoleon sees them."""
    lines[:] = converted(lines)


def without_ranges(app, what, name, obj, options, signature: str, returns: str):
    """For the event autodoc-process-signature: Annotated[int, Range(low=1, high=8)] as int."""
    return (signature and re.sub(r"Annotated\[(\w+), \w+\([^)]*\)\]", r"\1", signature)), returns


def converted(lines: list[str]) -> list[str]:
    """Blocks that are indented below a paragraph become literal; elsewhere characters with a meaning are escaped.

    The sections that napoleon knows and their entries, lists and doctests stay what they are. A sentence among the
    arguments that is no entry becomes a paragraph below them.
    """
    out: list[str] = []
    inside, literal, before = "", False, ""  # the section, inside a formula, the last line that is not empty
    for number, line in enumerate(lines):
        indented = line.startswith(" ")
        if line and not indented:
            section = _SECTION.match(line)
            inside, literal = section[1] if section else "", False
        elif inside == "Args" and re.match(r" {4}\S", line) and not _ENTRY.match(line):
            inside, line = "", line.strip()
            out.append("")
            indented = False
        after_gap = number > 0 and not lines[number - 1].strip()
        if indented and not inside and not literal and after_gap and not before.endswith("::"):
            literal = True
            out += [".. code-block:: text", ""]
        given = before.endswith("::") or line.lstrip().startswith(">>>")
        out.append(line if literal or given else _escaped(line))
        before = line if line.strip() and not (indented and before.endswith("::")) else before
    return out


def _escaped(line: str) -> str:
    parts = _CODE.split(line)
    parts[::2] = [re.sub(r"(?<=\w)_(?=\W|$)", r"\\_", re.sub(r"([*|])", r"\\\1", part)) for part in parts[::2]]
    return "".join(parts)
