"""Which compiled library the package loads: its own, or in a clone the installed one of the same C++ sources."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import spherenet_fast
from spherenet_fast._library import SOURCES_RECORD, find_library, sources_digest
from spherenet_fast.ops._register import fake

PACKAGE = Path(spherenet_fast.__file__).parent


@pytest.fixture
def clone(tmp_path):
    """A package folder without a library, and sources beside it."""
    (tmp_path / "clone" / "spherenet_fast").mkdir(parents=True)
    (tmp_path / "clone" / "csrc" / "cpu").mkdir(parents=True)
    (tmp_path / "clone" / "csrc" / "cpu" / "sum.cpp").write_text("int sum;\n")
    return tmp_path / "clone" / "spherenet_fast"


def install(site, digest, name="_C.abi3.so"):
    """A folder like site-packages in which the package is installed; the library in it."""
    (site / "spherenet_fast").mkdir(parents=True)
    (site / "spherenet_fast" / name).touch()
    if digest is not None:
        (site / "spherenet_fast" / SOURCES_RECORD).write_text(digest + "\n")
    return site / "spherenet_fast" / name


def test_a_library_beside_the_package_comes_first(clone, tmp_path):
    other = install(tmp_path / "site", sources_digest(clone.parent / "csrc"))
    own = clone / "_C.abi3.so"
    own.touch()
    assert find_library(clone, [str(clone.parent), str(other.parents[1])]) == own


@pytest.mark.parametrize(
    ("platform", "suffixes", "name"),
    [
        ("Linux", [".cpython-312-x86_64-linux-gnu.so", ".abi3.so", ".so"], "_C.abi3.so"),
        ("macOS", [".cpython-312-darwin.so", ".abi3.so", ".so"], "_C.abi3.so"),
        ("Windows", [".cp312-win_amd64.pyd", ".pyd"], "_C.pyd"),
        ("Python without a lock", [".cpython-313t-x86_64-linux-gnu.so", ".so"], "_C.cpython-313t-x86_64-linux-gnu.so"),
    ],
)
def test_file_names_that_setuptools_chooses(clone, monkeypatch, platform, suffixes, name):
    monkeypatch.setattr("spherenet_fast._library.EXTENSION_SUFFIXES", suffixes)
    (clone / name).touch()
    assert find_library(clone, []) == clone / name


def test_an_installed_library_of_the_same_sources_is_found(clone, tmp_path):
    digest = sources_digest(clone.parent / "csrc")
    install(tmp_path / "old", "0" * 64)
    install(tmp_path / "older", None)
    library = install(tmp_path / "site", digest)
    search = ["", str(tmp_path / "nowhere"), *(str(tmp_path / name) for name in ("old", "older", "site"))]
    assert find_library(clone, search) == library


@pytest.mark.parametrize("digest", ["0" * 64, None])
def test_an_installed_library_of_other_sources_is_refused(clone, tmp_path, digest):
    library = install(tmp_path / "site", digest)
    expected = f"installed library {library} was built from other sources than those in {clone.parent / 'csrc'}; build"
    with pytest.raises(ImportError, match=expected):
        find_library(clone, [str(tmp_path / "site")])


def test_without_any_library_the_message_says_how_to_build_it(clone):
    with pytest.raises(ImportError, match=f"is missing; build it with: pip install .* {clone.parent}$"):
        find_library(clone, [str(clone.parent)])


def test_a_library_without_an_operator_is_to_be_built_again():
    with pytest.raises(ImportError, match="with the operator new_one, got one .* python setup.py build_ext --inplace$"):
        fake("new_one")


def test_every_change_of_the_sources_counts(clone):
    sources = clone.parent / "csrc"
    digests = [sources_digest(sources)]
    (sources / "notes.txt").write_text("not compiled")
    assert sources_digest(sources) == digests[0]
    (sources / "cpu" / "sum.cpp").write_text("int difference;\n")
    digests.append(sources_digest(sources))
    (sources / "cpu" / "sum.cpp").rename(sources / "cpu" / "difference.cpp")
    digests.append(sources_digest(sources))
    (sources / "cpu" / "sum.h").touch()
    digests.append(sources_digest(sources))
    assert len(set(digests)) == 4


def test_models_work_in_a_clone_after_the_package_was_installed(tmp_path):
    library = find_library(PACKAGE, sys.path)
    own = tmp_path / "clone" / "spherenet_fast"
    shutil.copytree(PACKAGE, own, ignore=shutil.ignore_patterns("_C.*", "__pycache__"))
    (tmp_path / "clone" / "csrc").mkdir()
    (tmp_path / "clone" / "csrc" / "sum.cpp").write_text("int sum;\n")
    installed = install(tmp_path / "site", sources_digest(tmp_path / "clone" / "csrc"), library.name)
    shutil.copy(library, installed)
    program = (
        "import spherenet_fast, torch\n"
        "spherenet_fast.SphereNet(hidden_channels=8)\n"
        "print(spherenet_fast.__file__, *torch.ops.loaded_libraries)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path / "clone",
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
    )  # fmt: skip
    assert done.stdout.split() == [str(own / "__init__.py"), str(installed)]
