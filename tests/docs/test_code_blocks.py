"""Every Python and shell block of docs/ and of README.md does what the page says.

The blocks of a page run in order, in an empty folder, Python in one namespace. Trainings get a budget of two steps
(REDUCED), other commands that would take long some options (QUICK). HTML comments in a page, each with its reason, say
otherwise:

    <!-- not run: needs a GPU -->            directly above a block that no test runs
    <!-- long: two trainings -->             directly above one that runs with --all-blocks only
    <!-- file: mine.yaml -->                 directly above one that is the contents of this file, too
    <!-- needs: openmm -->                   directly above one that runs where this module is installed
    <!-- after: spherenet-fast train ... --> at the top of a page that starts where this command has run
"""

import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
from commands import call

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
PYTHON, SHELL = ("python",), ("sh", "bash", "console", "shell")
# Blocks that nothing runs, all pages together: a new one has to be counted here.
NOT_RUN = 14
COMMAND = "spherenet-fast"
MARK = re.compile(r"<!-- (not run|long|file|needs): ?(.*?) ?-->$")
REDUCED = {
    "training.max_steps": 2, "training.max_time": "null", "training.max_epochs": "null", "training.val_every": 2,
    "training.batch_size": 2, "training.eval_batch_size": 4, "training.threads": 1, "training.device": "cpu",
    "training.tensorboard": "false", "data.val": 2, "data.test": 2,
}  # fmt: skip
QUICK = {
    "sample": "--frames 10 --every 0.5fs --equilibrate 1fs --calculator ase.calculators.emt:EMT --candidates 2",
    "vib": "--atoms 0,1",
    "check": "--lines 1 --points 12 --picoseconds 0.01",
}


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    code: str
    line: int  # where its fence is, from 1
    mark: str  # "not run", "long", "file", "needs" or ""
    text: str  # of the mark: the reason, or the name of the file or module


def blocks(page: str) -> list[Block]:
    """The Python and shell blocks of a page, and others that are a file.

    Raises ValueError for a mark that says nothing or has no block directly below.
    """
    found, lines, number = [], page.splitlines(), 0
    while number < len(lines):
        mark = MARK.match(lines[number])
        number += bool(mark)
        fence = re.match(r"(`{3,})(.*)", lines[number]) if number < len(lines) else None
        if mark and not (mark[2] and fence):
            raise ValueError(f"line {number}: expected a text, and a block directly below, got {mark[0]!r}")
        if fence:
            first = number + 1
            number = lines.index(fence[1], first)
            kind, text = mark.groups() if mark else ("", "")
            if fence[2] in PYTHON + SHELL or kind == "file":
                found.append(Block(fence[2], "\n".join(lines[first:number]), first, kind, text))
        number += not mark or bool(fence)
    return found


def commands(code: str) -> list[list[str]] | None:
    """The words of the block's commands if all of them are our own and plain; None for a block that needs a shell."""
    lines = code.replace("\\\n", " ").splitlines()
    found = [words for line in lines if (words := shlex.split(line.removeprefix("$ "), comments=True))]
    plain = all(words[0] == COMMAND and not any(set("|&;<>$`") & set(word) for word in words) for words in found)
    return [words[1:] for words in found] if plain else None


def reduced(words: list[str]) -> list[str]:
    """The words of a command, with a budget of two steps if it trains, and what makes others quick."""
    if words[0] in QUICK:
        return [*words, *QUICK[words[0]].split()]
    if words[0] != "train" or "--help" in words:
        return words
    return [*words, *(part for key, value in REDUCED.items() for part in ("--set", f"{key}={value}"))]


def installed(module: str) -> bool:
    """Whether there is a module, of a package or in it."""
    package = module.partition(".")[0]
    return find_spec(package) is not None and find_spec(module) is not None


def run_shell(code: str, folder: Path) -> None:
    """Run the block in `folder`; commands of ours in this process, where everything is imported already."""
    plain = commands(code)
    if plain is None:
        ours = f'{COMMAND}() {{ {shlex.quote(sys.executable)} -m spherenet_fast.cli "$@"; }}\nset -euo pipefail\n'
        subprocess.run(["bash", "-c", ours + code.replace("\n$ ", "\n").removeprefix("$ ")], cwd=folder, check=True)
        return
    for words in plain:
        status, out, err = call(*reduced(words))
        assert status == 0, f"{COMMAND} {' '.join(words)}: {out}{err}"


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """{command: folder in which it has run}, each run once."""
    return {}, tmp_path_factory


@pytest.fixture
def prepared(runs, tmp_path, monkeypatch):
    """A function of a page's text: makes the folder that the page starts in the current one, and returns it."""
    known, factory = runs

    def prepare(text: str) -> Path:
        command = re.match(r"<!-- after: (.*?) -->\n", text)
        if command and command[1] not in known:
            known[command[1]] = factory.mktemp("after")
            monkeypatch.chdir(known[command[1]])
            run_shell(command[1], known[command[1]])
        if command:
            shutil.copytree(known[command[1]], tmp_path, dirs_exist_ok=True)
        monkeypatch.chdir(tmp_path)
        return tmp_path

    return prepare


@pytest.mark.filterwarnings("ignore")  # a training of two steps has much to warn of
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_blocks(page, prepared, pytestconfig):
    text = page.read_text()
    chosen = [block for block in blocks(text) if block.mark != "not run"]
    chosen = [block for block in chosen if block.mark != "needs" or installed(block.text)]
    if not pytestconfig.getoption("--all-blocks"):
        chosen = [block for block in chosen if block.mark != "long"]
    folder = prepared(text) if chosen else None
    namespace = {"__name__": "page"}
    for block in chosen:
        if block.mark == "file":
            (folder / block.text).write_text(block.code)
        if block.language in PYTHON:
            source = "\n" * block.line + block.code  # so that a traceback has the page's lines
            exec(compile(source, str(page), "exec"), namespace)
        elif block.language in SHELL:
            run_shell(block.code, folder)


def test_blocks_that_are_not_run_are_few():
    marked = [block for page in PAGES for block in blocks(page.read_text()) if block.mark == "not run"]
    assert len(marked) == NOT_RUN


def test_blocks_are_found():
    page = """
```python
a = 1
```

<!-- long: slow -->
```sh
b \\
  c
```
```yaml
d: 1
```
<!-- file: e.yaml -->
```yaml
e: 1
```"""
    assert blocks(page) == [
        Block("python", "a = 1", 2, "", ""), Block("sh", "b \\\n  c", 7, "long", "slow"),
        Block("yaml", "e: 1", 15, "file", "e.yaml"),
    ]  # fmt: skip


@pytest.mark.parametrize("page", ["<!-- not run: -->\n```sh\na\n```", "<!-- long: slow -->\n\n```sh\na\n```"])
def test_marks_say_something_about_a_block(page):
    with pytest.raises(ValueError, match="line 1: expected a text, and a block directly below"):
        blocks(page)


def test_blocks_of_an_engine_run_where_it_is_installed():
    [block] = blocks("<!-- needs: openmm -->\n```python\nimport openmm\n```")
    assert (block.mark, block.text) == ("needs", "openmm")
    assert (
        installed("torch") and installed("torch.nn") and not installed("no_such.engine") and not installed("torch.no")
    )


def test_plain_commands():
    code = "spherenet-fast train ethanol \\\n    --set a=b   # a comment\n$ spherenet-fast predict x"
    assert commands(code) == [["train", "ethanol", "--set", "a=b"], ["predict", "x"]]
    assert commands("for t in a b; do spherenet-fast train $t; done") is None
    assert commands("python -m bench.speed.run") is None
