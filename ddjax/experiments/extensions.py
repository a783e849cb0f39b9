"""Python files in which users register their own algorithms, models and other parts."""

import hashlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from ddjax.errors import InputError
from ddjax.registry import all_or_nothing

_included: dict[Path, ModuleType] = {}


def include(paths: Iterable[str]) -> None:
    """Import Python files, each once per process, so that settings can name the entries that the files register.

    Raises:
      InputError: a file does not exist, or its import fails, in which case none of its registrations remain.
    """
    for text in paths:
        try:
            path = Path(text).expanduser().resolve()
            is_file = path.is_file()
        except (OSError, RuntimeError, ValueError):
            is_file = False
        if not is_file:
            raise InputError(f"include {text!r}: there is no such file")
        if path in _included:
            continue
        name = f"ddjax_include_{path.stem}_{len(_included)}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise InputError(f"include {text!r} is not a Python file; name a .py file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look up their module there
        try:
            with all_or_nothing():
                spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            del sys.modules[name]
            raise InputError(f"include {text!r} fails: {_where(error, path)}") from error
        _included[path] = module


def digests(paths: Iterable[str]) -> str:
    """Return the names of Python files with digests of their contents, as in `mine.py:3f2a…`, to identify a run."""
    files = (Path(text).expanduser() for text in paths)
    return ",".join(f"{path.name}:{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}" for path in files)


def _where(error: BaseException, path: Path) -> str:
    """Return the message of an error, with the number of the line in the file that led to the error."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    text = " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())
    kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
    return f"{kind}{text}" + (f" (line {line})" if line else "")
