"""The order of the source: imports lead downward and in no circle, folders and files are small enough to be read."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("spherenet_fast", "examples", "csrc", "tests", "bench")
MOST_MODULES, MOST_LINES = 12, 400
# From the lowest to the highest; "_" stands for the private modules at the top of the package, "" for its __init__.
FLOORS = (
    "_ pretrained ops graph nn cuda_graph models data plots training calculators dynamics checks export  cli"
).split(" ")


def modules_of(package):
    """Paths by name: spherenet_fast/nn/blocks.py as "nn.blocks", spherenet_fast/nn/__init__.py as "nn"."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT / package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(package, files, module):
    """The modules of the package that a module imports, wherever in its file."""
    above = [package, *files[module].relative_to(ROOT / package).parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(files[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = above[: len(above) + 1 - node.level] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for name in node.names:
                below = f"{source}.{name.name}"
                found.add(below if below.removeprefix(f"{package}.") in files else source)
    ours = {name.removeprefix(package).lstrip(".") for name in found if name.partition(".")[0] == package}
    assert ours <= files.keys(), f"{module} imports {ours - files.keys()}"
    return ours - {module}


FILES = {package: modules_of(package) for package in ("spherenet_fast", "bench")}
IMPORTS = {package: {module: imported(package, files, module) for module in files} for package, files in FILES.items()}
SMALL = sorted({path.parent.relative_to(ROOT) for files in FILES.values() for path in files.values()})


def floor(module):
    top = module.partition(".")[0]
    return FLOORS.index("_" if top.startswith("_") else top)


def test_no_module_imports_a_higher_one():
    upward = [
        (one, other)
        for one, others in IMPORTS["spherenet_fast"].items()
        for other in others
        if floor(other) > floor(one)
    ]
    assert upward == []


@pytest.mark.parametrize("package", IMPORTS)
def test_no_imports_in_a_circle(package):
    list(TopologicalSorter(IMPORTS[package]).static_order())  # CycleError names them


def test_imports_are_seen():
    """This file reads what it claims to read."""
    found = IMPORTS["spherenet_fast"]
    assert {"graph.graph", "graph.checks", "_library", "ops"} <= found["graph.radius"]
    assert {"training.config", "training.run"} <= found["training"] and "cli" in found
    assert {"providers.models", "speed.memory", "tables"} <= IMPORTS["bench"]["speed.run"]


@pytest.mark.parametrize("folder", SMALL, ids=str)
def test_folders_are_small(folder):
    """Operators and commands do not count, however many: each is found by its name, that of its file."""
    operators = {path.stem for path in (ROOT / "csrc/torch").glob("*.cpp")} if "ops" in folder.parts else set()
    modules = {path.stem for path in (ROOT / folder).glob("*.py")} - {"__init__"} - operators
    if folder.name == "cli":
        modules = {name for name in modules if name.startswith("_")}
    assert len(modules) <= MOST_MODULES


def test_files_are_short():
    suffixes = (".py", ".h", ".cpp", ".cu", ".sh")
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in suffixes]
    assert len(files) > 200
    assert {str(path): lines for path in files if (lines := len(path.read_text().splitlines())) > MOST_LINES} == {}
