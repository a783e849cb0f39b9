"""The examples in docstrings: every public function and the main classes have one, and it runs as it is written."""

import doctest
import functools
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import ddjax
from ddjax import Group, Population, Simulation, theory

REFERENCE = Path(__file__).parents[1] / "docs/reference"
PACKAGES = ["ddjax"] + [
    f"ddjax.{name}"
    for name in (
        "algorithms",
        "mixing",
        "networks",
        "models",
        "data",
        "learning",
        "simulation",
        "testing",
        "experiments",
    )
]
MODULES = [f"ddjax.theory.{module.name}" for module in pkgutil.iter_modules(theory.__path__)]


def public(package):
    """The functions that a package exports, or that a module without a list of exports defines."""
    for name, function in inspect.getmembers(package, inspect.isfunction):
        here = function.__module__ == package.__name__ and not name.startswith("_")
        if name in getattr(package, "__all__", ()) or (here and not hasattr(package, "__all__")):
            yield f"{function.__module__}.{name}", function


DESCRIBED = dict(each for name in PACKAGES + MODULES for each in public(importlib.import_module(name)))
DESCRIBED |= {f"{each.__module__}.{each.__name__}": each for each in (Group, Population, Simulation)}
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@functools.cache
def start(package):
    """The names that the examples of a package share: those of the first block of Python on its reference page."""
    page = REFERENCE / f"{package}.md"
    block = re.search(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL) if page.exists() else None
    names = {"ddjax": ddjax}
    exec(block[1] if block else "", names)
    return names


@pytest.mark.parametrize("name", DESCRIBED)
def test_the_example_of_a_function_or_class_runs(name):
    described = DESCRIBED[name]
    text = inspect.getdoc(described) or ""
    assert ">>>" in text, f"{name} has no example"
    assert "\nExamples:\n" in text, f"{name}: the docs show only a section `Examples:` as code"
    names = dict(start(described.__module__.split(".")[1]))
    test = doctest.DocTestParser().get_doctest(text, names, name, inspect.getsourcefile(described), 0)
    said = []
    doctest.DocTestRunner(optionflags=OPTIONS, verbose=False).run(test, out=said.append)
    assert not said, "".join(said)
