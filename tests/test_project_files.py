"""Files that no code reads, but people and services do: they agree with the package and name what exists."""

import os
import re
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

import spherenet_fast

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest there

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").is_file())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
COMMANDS = [*WORKFLOWS, ROOT / ".ci/run", ROOT / ".ci/lint", ROOT / "CONTRIBUTING.md", ROOT / "README.md"]


def test_one_version():
    """The version that a release sets in three files; a build reads the package's."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert citation["version"] == newest[1] == spherenet_fast.__version__


def test_installed_package_says_that_it_is_typed():
    assert (files("spherenet_fast") / "py.typed").is_file()


def test_files_beside_the_code_are_installed():
    """Wheel and source archive take what package-data names."""
    package = ROOT / "spherenet_fast"
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["spherenet_fast"]
    named = {path for pattern in patterns for path in package.glob(pattern)}
    beside = {path for path in package.rglob("*") if path.suffix in (".ckpt", ".md", ".npz", ".typed", ".yaml")}
    assert {package / "pretrained/md17-ethanol.ckpt", package / "samples/toluene.npz"} <= beside <= named


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run_scripts_that_exist(path):
    jobs = yaml.safe_load(path.read_text())["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    scripts = [word for step in steps for word in step.get("run", "").split() if word.startswith(".ci/")]
    assert all(os.access(ROOT / script, os.X_OK) for script in scripts), scripts
    cached = [line for step in steps for line in step.get("with", {}).get("cache-dependency-path", "").split()]
    assert all((ROOT / name).is_file() for name in cached), cached
    assert all(re.search(r"@(v\d+|release/v\d+)$", step["uses"]) for step in steps if "uses" in step)


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.name)
def test_extras_that_are_installed_exist(path):
    named = re.findall(r"(?:\.|spherenet_fast)\[([\w,]+)\]", path.read_text())
    extras = {extra for names in named for extra in names.split(",")}
    assert extras <= PROJECT["project"]["optional-dependencies"].keys()


def test_one_torch_for_documented_installation_and_checks():
    """The tests' workflow takes it beside the oldest one."""
    found = {version for path in COMMANDS for version in re.findall(r"torch==(\d[\d.]*)", path.read_text())}
    assert len(found) == 1, found
    assert f'torch: "{found.pop()}"' in (ROOT / ".github/workflows/tests.yml").read_text()


def test_type_checker_finds_the_modules_that_it_is_to_check():
    """A pattern without a match would leave a module unchecked in silence."""
    assert [pattern for pattern in PROJECT["tool"]["mypy"]["files"] if not any(ROOT.glob(pattern))] == []


def test_contributing_names_paths_that_exist():
    """Those with an X in the place of a name are the recipes' own."""
    named = set(re.findall(r"(?:[\w.]+/)+[\w.]*\w", (ROOT / "CONTRIBUTING.md").read_text()))
    assert "bench/gpu.sh" in named
    assert [path for path in named if not (re.search(r"\bX\b|_X\b", path) or (ROOT / path).exists())] == []
