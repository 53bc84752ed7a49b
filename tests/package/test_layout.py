"""The order of the source: imports lead downward and in no circle, folders and files are small enough to be read."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "spherenet_fast"
FOLDERS = ("spherenet_fast", "examples", "csrc", "tests", "bench")
MOST_MODULES, MOST_LINES = 12, 400
# From the lowest to the highest; "_" stands for the private modules at the top of the package, "" for its __init__.
FLOORS = "_, ops, graph, nn, cuda_graph, models, data, plots, training, calculators, , cli".split(", ")


def module_of(path):
    """spherenet_fast/nn/blocks.py as "nn.blocks", spherenet_fast/nn/__init__.py as "nn"."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(module, path):
    """The modules of the package that a module imports, wherever in its file."""
    package = ["spherenet_fast", *path.relative_to(PACKAGE).parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for name in node.names:
                below = f"{source}.{name.name}"
                found.add(below if below.removeprefix("spherenet_fast.") in FILES else source)
    ours = {name.removeprefix("spherenet_fast").lstrip(".") for name in found if name.startswith("spherenet_fast")}
    assert ours <= FILES.keys(), f"{module} imports {ours - FILES.keys()}"
    return ours - {module}


IMPORTS = {module: imported(module, path) for module, path in FILES.items()}


def floor(module):
    top = module.partition(".")[0]
    return FLOORS.index("_" if top.startswith("_") else top)


def test_no_module_imports_a_higher_one():
    upward = [(one, other) for one, others in IMPORTS.items() for other in others if floor(other) > floor(one)]
    assert upward == []


def test_no_imports_in_a_circle():
    list(TopologicalSorter(IMPORTS).static_order())  # CycleError names them


def test_imports_are_seen():
    """This file reads what it claims to read."""
    assert {"graph.graph", "graph.checks", "_library", "ops"} <= IMPORTS["graph.radius"]
    assert {"training.config", "training.run"} <= IMPORTS["training"] and "cli" in IMPORTS


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES.values()}), ids=lambda path: path.name)
def test_folders_are_small(folder):
    modules = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert len(modules) <= MOST_MODULES


def test_files_are_short():
    suffixes = (".py", ".h", ".cpp", ".cu", ".sh")
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in suffixes]
    assert len(files) > 200
    assert {str(path): lines for path in files if (lines := len(path.read_text().splitlines())) > MOST_LINES} == {}
