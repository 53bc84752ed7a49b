"""Modules under the paths of before: the same modules, and one warning that names the path of today."""

import sys
import warnings
from importlib import import_module

import pytest

import spherenet_fast
from spherenet_fast import ops
from spherenet_fast._old_names import OLD_NAMES


@pytest.fixture
def not_imported(monkeypatch):
    for old in OLD_NAMES:
        monkeypatch.delitem(sys.modules, f"spherenet_fast.{old}", raising=False)
        monkeypatch.delitem(vars(spherenet_fast), old, raising=False)


@pytest.mark.parametrize("old", OLD_NAMES)
def test_the_same_module_under_both_names(old, not_imported):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        module = import_module(f"spherenet_fast.{old}")
        assert import_module(f"spherenet_fast.{old}") is module
    path = f"spherenet_fast.{OLD_NAMES[old]}"
    assert module is sys.modules[path] and module.__spec__.name == module.__name__ == path
    ours = [str(one.message) for one in seen if "spherenet_fast" in str(one.message)]
    assert ours[-1] == f"spherenet_fast.{old} is deprecated: import {path} instead"
    assert len(ours) == 1 + old.count(".")  # the package of a submodule is imported under its old name, too


def test_the_warning_is_for_the_line_that_imports(not_imported):
    with pytest.warns(DeprecationWarning, match="import spherenet_fast.calculators.ase instead") as seen:
        from spherenet_fast.calculator import SphereNetCalculator
    assert [one.filename for one in seen] == [__file__]
    assert SphereNetCalculator is import_module("spherenet_fast.calculators.ase").SphereNetCalculator
    with pytest.warns(DeprecationWarning, match="import spherenet_fast.graph.padding instead") as seen:
        from spherenet_fast import padding
    assert [one.filename for one in seen] == [__file__] and padding.__name__ == "spherenet_fast.graph.padding"


@pytest.mark.parametrize("old", [old for old in OLD_NAMES if "." not in old])
def test_modules_of_users_with_an_old_name_are_theirs(old, tmp_path, monkeypatch):
    (tmp_path / f"{old}.py").write_text("mine = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, old, raising=False)
    assert import_module(old).mine
    del sys.modules[old]


def test_an_operator_under_its_old_name():
    with pytest.warns(DeprecationWarning, match="spherenet_fast.ops.torsion_reference is deprecated: use ") as caught:
        found = ops.torsion_reference
    assert getattr(ops, found.__name__) is found
    assert str(caught[0].message).endswith(f"use {found.__name__} instead") and caught[0].filename == __file__
    with pytest.raises(AttributeError, match="'spherenet_fast.ops' has no attribute 'nothing'"):
        ops.nothing  # noqa: B018
