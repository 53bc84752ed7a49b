"""Calculators of ASE by name, as a command line has it."""

import importlib
import inspect
import os
import sys
from typing import Any

import yaml
from ase.calculators.calculator import Calculator

# Before the colon what is no module's object: module, class, the argument that stands behind the colon, others.
SHORT = {"tblite": ("tblite.ase", "TBLite", "method", {"verbosity": 0})}
INSTALL = {"tblite": 'pip install "spherenet_fast[xtb]"', "pyscf": "pip install pyscf"}


def named_calculator(name: str, options: dict[str, Any] | None = None) -> Calculator:
    """A calculator: "tblite:GFN2-xTB", or a class or a function that makes one, as "ase.calculators.emt:EMT".

    Modules are looked for in the current folder, too, so that a file of one's own will do: "mine:calculator".

    Args:
        options: what the class or function is called with, as {"charge": 1}.

    Raises:
        ValueError: nothing is found under the name, it does not take the options, or what it makes is no calculator
            with energy and forces.
    """
    before, colon, after = name.partition(":")
    if not (before and colon and after):
        raise ValueError(f"--calculator: expected {' or '.join(f'{short}:METHOD' for short in SHORT)} or MODULE:NAME, "
                         f"as ase.calculators.emt:EMT, got {name!r}")  # fmt: skip
    module, attribute, defaults = before, after, {}
    if before in SHORT:
        module, attribute, argument, others = SHORT[before]
        defaults = {argument: after} | others
    make = _found(name, module, attribute)
    try:
        calculator = make(**defaults | (options or {}))
    except Exception as error:  # another package's: whatever it raises is the answer
        raise ValueError(f"--calculator {name}: {type(error).__name__}: {error}") from error
    if not isinstance(calculator, Calculator):
        raise ValueError(f"--calculator {name}: expected a calculator of ASE, got {type(calculator).__name__}")
    if missing := [result for result in ("energy", "forces") if result not in calculator.implemented_properties]:
        raise ValueError(f"--calculator {name}: expected energy and forces, got a calculator without {missing[0]}")
    return calculator


def parsed_options(given: list[str] | None) -> dict[str, Any]:
    """["charge=1", ...] as {"charge": 1}, values as in YAML; ValueError for anything else."""
    found = {}
    for text in given or []:
        key, equals, value = text.partition("=")
        if not (key.isidentifier() and equals):
            raise ValueError(f"--option: expected KEY=VALUE, as charge=1, got {text!r}")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"--option {key}: expected a value in YAML, got {value!r}") from error
    return found


def _found(name: str, module: str, attribute: str) -> Any:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)
    try:
        make = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        install = INSTALL.get((error.name or "").partition(".")[0])
        advice = f"; {install}" if install else ""
        raise ValueError(f"--calculator {name}: there is no module {error.name}{advice}") from error
    except AttributeError as error:
        raise ValueError(f"--calculator {name}: the module {module} has no {attribute}") from error
    except Exception as error:  # of a module that cannot be imported
        raise ValueError(f"--calculator {name}: {type(error).__name__}: {error}") from error
    if not (inspect.isclass(make) or callable(make)):
        raise ValueError(f"--calculator {name}: expected a class or a function, got {type(make).__name__}")
    return make
