"""The parts of the site that are made from the code and the results; none of this needs Sphinx."""

import dataclasses
import inspect
import re
import sys
from pathlib import Path
from typing import Annotated, Literal, get_type_hints

import pytest

from spherenet_fast.models import MODELS
from spherenet_fast.nn.ranges import Range
from spherenet_fast.training.config import Config, reference

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "docs"))
import docstrings  # noqa: E402
import generate  # noqa: E402

SECTIONS = {name: section for name, section in get_type_hints(Config).items() if name != "model"}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """{name: text} of what is made."""
    folder = tmp_path_factory.mktemp("generated")
    generate.write(folder)
    return {path.stem: path.read_text() for path in folder.glob("*.md")}


@pytest.mark.parametrize(("name", "section"), SECTIONS.items())
def test_every_key_of_a_section_has_a_line(parts, name, section):
    found = re.findall(rf"^\| `{name}\.(\w+)` \|", parts["configuration"], re.M)
    assert found == [field.name for field in dataclasses.fields(section)]


@pytest.mark.parametrize("name", MODELS)
def test_every_argument_of_a_model_has_a_line_with_an_explanation(name):
    keys = reference.model_keys(MODELS[name])
    arguments = [argument for argument in inspect.signature(MODELS[name]).parameters if argument != "out_channels"]
    assert [key.name for key in keys] == arguments
    assert all(len(key.note) > 3 for key in keys)


@pytest.mark.parametrize(("name", "section"), SECTIONS.items())
def test_every_key_of_a_section_has_an_explanation(name, section):
    assert [key.name for key in reference.section_keys(name, section) if len(key.note) < 4] == []


def test_types_and_limits_of_annotations():
    assert reference.stated(int | None) == ("int or null", {})
    assert reference.stated(Annotated[int, Range(1, 8)] | None) == ("int or null", {"low": 1, "high": 8})
    assert reference.stated(Literal["a", "b"]) == ("str", {"choices": ("a", "b")})
    assert reference.limits({"low": 1, "high": 8}) == "1 to 8"
    assert reference.limits({"low": 1, "high": 2**31 - 1}) == "at least 1"
    assert reference.limits({"above": 0, "high": 1}) == "above 0, at most 1"
    assert reference.limits({"choices": ("a", "b")}) == "`a`, `b`"


def test_comments_above_and_beside_a_field():
    @dataclasses.dataclass
    class Section:
        # first line
        # second line
        above: int = 1
        beside: float = 1.0  # a note
        none: bool = True

    assert reference.comments(Section) == {"above": "first line second line", "beside": "a note", "none": ""}


def test_results_are_shown(parts):
    assert "| SphereNet | 1,898,566 |" in parts["benchmarks"]
    assert parts["minutes"].count("\n") > 3 and "w/o φ" in parts["ablation"]
    assert not parts["experiments"].startswith("# ") and "## Ablation" in parts["experiments"]


def test_docstrings_keep_formulas_and_escape_the_rest():
    text = ["A product x * y of |x|, `a*b`, train_:", "", "    m_ij = x * y", "", "Args:", "    x: a * b", "        c."]
    text += ["    Others as there."]
    assert docstrings.converted(text) == [
        r"A product x \* y of \|x\|, `a*b`, train\_:", "", ".. code-block:: text", "", "    m_ij = x * y", "",
        "Args:", r"    x: a \* b", "        c.", "", "Others as there.",
    ]  # fmt: skip


def test_figures_are_there():
    pages = "".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", pages)
    assert len(pictures) >= 4 and all((ROOT / "docs" / picture).is_file() for picture in pictures)
