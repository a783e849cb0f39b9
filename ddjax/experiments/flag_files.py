"""Flag files, with one flag per line, comments that begin with `#` or `//`, and nested files."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ddjax.errors import InputError

_FLAG = re.compile(r"--?[^-=\s][^=\s]*(=.*)?")
_NAMES = ("--flagfile", "-flagfile")


def expand(arguments: Sequence[str]) -> list[str]:
    """Replace each `--flagfile=FILE` among the arguments of a command with the flags in the file.

    Raises:
      InputError: a file cannot be read or includes itself, or one of its lines is not a flag.
    """
    return list(_expanded(arguments, ()))


def _expanded(arguments: Sequence[str], within: tuple[Path, ...]) -> Iterator[str]:
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if argument == "--":
            yield argument
            yield from rest
        elif name in _NAMES:
            yield from _flags(value if equals else next(rest, ""), within)
        else:
            yield argument


def _flags(name: str, within: tuple[Path, ...]) -> Iterator[str]:
    """Yield the flags of a file; `within` holds the chain of files that include this file."""
    if not name.strip():
        raise InputError("--flagfile needs a file, as in --flagfile=FILE")
    try:
        path = Path(name.strip()).expanduser()
        content = path.read_bytes()
        path = path.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"flag file {name!r} cannot be read: {reason}") from None
    if path in within:
        raise InputError(f"flag file {name!r} includes itself")
    try:
        text = content.decode("utf-8-sig")  # some editors write a byte-order mark
    except UnicodeDecodeError as error:
        lines_before = content.count(b"\n", 0, error.start)
        place = f"byte {content[error.start]:#04x} on line {lines_before + 1}"
        raise InputError(f"flag file {name!r} is not UTF-8: {place}") from None
    flags = []
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        line = line.strip()
        if not line or line.startswith(("#", "//")):
            continue
        if not _FLAG.fullmatch(line):
            raise InputError(f"flag file {name!r}, line {number}: {line!r} is not a flag; write --name=value")
        if line in _NAMES:
            raise InputError(f"flag file {name!r}, line {number}: --flagfile needs a file, as in --flagfile=FILE")
        flags.append(line)
    yield from _expanded(flags, (*within, path))
