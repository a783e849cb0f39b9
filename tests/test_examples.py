"""The examples in docstrings: every public function has one, and it runs as it is written."""

import doctest
import functools
import importlib
import inspect
import re
from pathlib import Path

import pytest

import ddjax

REFERENCE = Path(__file__).parents[1] / "docs/reference"
PACKAGES = ["ddjax"] + [
    f"ddjax.{name}"
    for name in ("algorithms", "mixing", "networks", "models", "data", "learning", "simulation", "testing")
]
FUNCTIONS = {
    f"{function.__module__}.{name}": function
    for package in map(importlib.import_module, PACKAGES)
    for name, function in inspect.getmembers(package, inspect.isfunction)
    if name in package.__all__
}
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@functools.cache
def start(package):
    """The names that the examples of a package share: those of the first block of Python on its reference page."""
    page = REFERENCE / f"{package}.md"
    block = re.search(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL) if page.exists() else None
    names = {"ddjax": ddjax}
    exec(block[1] if block else "", names)
    return names


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_example_of_a_function_runs(name):
    function = FUNCTIONS[name]
    text = inspect.getdoc(function) or ""
    assert ">>>" in text, f"{name} has no example"
    assert "\nExamples:\n" in text, f"{name}: the docs show only a section `Examples:` as code"
    names = dict(start(function.__module__.split(".")[1]))
    test = doctest.DocTestParser().get_doctest(text, names, name, inspect.getsourcefile(function), 0)
    said = []
    doctest.DocTestRunner(optionflags=OPTIONS, verbose=False).run(test, out=said.append)
    assert not said, "".join(said)
