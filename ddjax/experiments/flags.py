"""Command lines, whose flags are made from the fields of settings classes; only this file imports absl."""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import flags

from ddjax.errors import DivergedError, InputError
from ddjax.experiments import signals, streams
from ddjax.experiments.extensions import include
from ddjax.experiments.fields import Field
from ddjax.experiments.flag_files import expand


class Given(NamedTuple):
    """Contents of a command line.

    Attributes:
      values: value of every flag, by name.
      present: names of the flags that were given.
      arguments: arguments that are not flags.
    """

    values: dict[str, Any]
    present: frozenset[str]
    arguments: list[str]

    def take(self, cls: Any, **others: Any) -> Any:
        """Make an instance of a settings class from the flags that have its fields' names, and from `others`."""
        names = cls.__dataclass_fields__.keys() & self.values.keys()
        return cls(**{name: self.values[name] for name in names} | others)


def _plain(message: str) -> str:
    """Replace the words with which Python reports a value of the wrong type."""
    for theirs, ours in (
        ("invalid literal for int.*", "must be a whole number"),
        ("could not convert string to float.*", "must be a number"),
        (r"\('Non-boolean argument.*", "must be true or false"),
    ):
        message = re.sub(theirs, ours, message)
    return message


def parse(fields: Mapping[str, Field], argv: Sequence[str]) -> Given:
    """Read a command line and the files that its `--flagfile=FILE` arguments name.

    Args:
      fields: flags of the command, by name.
      argv: name of the script, then its arguments.

    Raises:
      InputError: a flag is unknown, a value is not accepted, or a file cannot be read.
    """
    known = flags.FlagValues()
    define: dict[type, Callable] = {
        str: flags.DEFINE_string,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        bool: flags.DEFINE_boolean,
        tuple: flags.DEFINE_multi_string,
    }
    for name, field in fields.items():
        default = list(field.default) if field.kind is tuple else field.default
        define[field.kind](name, default, field.help, flag_values=known)
    try:
        arguments = known([*argv[:1], *expand(argv[1:])])[1:]
    except flags.Error as error:
        raise InputError(_plain(str(error))) from None
    values = {
        name: tuple(known[name].value or ()) if field.kind is tuple else known[name].value
        for name, field in fields.items()
    }
    return Given(values, frozenset(name for name in fields if known[name].present), arguments)


def run(
    body: Callable[[Given], int | None],
    fields: Mapping[str, Field],
    summary: str,
    argv: Sequence[str] | None = None,
    arguments: str = "",
    kept: str = "what was written is kept",
) -> int:
    """Read a command line and run `body` with its contents.

    Args:
      body: function that runs the command and returns its exit code, or `None` for 0.
      fields: flags of the command, by name.
      summary: first line of `--help`.
      argv: name of the script, then its arguments; `None` for the command line of the process.
      arguments: names of the arguments that are not flags; empty if there are no such arguments.
      kept: end of the message after an interruption; it says what remains and how to continue.

    Returns:
      The exit code (see `guarded`).
    """

    def start(argv: list[str]) -> int | None:
        if {"--help", "-help", "-h", "--helpfull", "--helpshort"} & set(argv[1:]):
            include(value.removeprefix("--include=") for value in argv[1:] if value.startswith("--include="))
            print(help_text(summary, fields))
            return 0
        given = parse(fields, argv)
        include(given.values.get("include", ()))
        if given.arguments and not arguments:
            raise InputError(f"unexpected argument {given.arguments[0]!r}; flags are written --name=value")
        return body(given)

    return guarded(start, argv, kept)


def guarded(
    body: Callable[[list[str]], int | None], argv: Sequence[str] | None, kept: str = "what was written is kept"
) -> int:
    """Run a command; mistakes and signals end it with a one-line message, but lost output does not end it.

    Args:
      body: function that takes the command line and returns an exit code, or `None` for 0.
      argv: name of the script, then its arguments; `None` for the command line of the process.
      kept: end of the message after an interruption; it says what remains and how to continue.

    Returns:
      The exit code: 0 for success, 2 for a user's mistake, 3 for a run that diverged, 128 + number for a signal.
    """
    line = list(sys.argv if argv is None else argv)
    script = Path(line[0]).name
    with streams.tolerant(script):
        return _guarded(body, line, script, kept, ends=argv is None)


def _guarded(body: Callable[[list[str]], int | None], argv: list[str], script: str, kept: str, ends: bool) -> int:
    try:
        with signals.handled(script, ends):
            return body(argv) or 0
    except DivergedError as error:
        return _say(script, error, 3)
    except (InputError, OSError, UnicodeError, MemoryError) as error:
        return _say(script, error, 2)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return _say(script, "out of memory; use fewer devices, a smaller model or a smaller reference set", 2)
    except signals.Interrupted as signal:
        return _say(script, f"{signals.said(signal.number)}; {signal.kept or kept}", 128 + signal.number)
    except KeyboardInterrupt:
        return _say(script, f"interrupted; {kept}", 130)


def help_text(summary: str, fields: Mapping[str, Field]) -> str:
    """Return the text of `--help`: every flag with its help and its default, by section."""
    sections: dict[str, list[Field]] = {}
    for field in fields.values():
        sections.setdefault(field.section, []).append(field)
    lines = [summary, "", "--flagfile=FILE reads flags from a file, one per line."]
    for title, members in sections.items():
        lines += ["", f"{title}:"]
        for field in members:
            default = str(field.default).lower() if isinstance(field.default, bool) else field.default
            shown = f" (default {default})" if field.default not in ("", ()) else ""
            lines += [
                f"  --{field.name}" + (f" ({field.unit})" if field.unit else ""),
                flags.text_wrap(field.text + shown, 100, "      "),
            ]
    return "\n".join(lines)


def _say(script: str, message: object, code: int) -> int:
    if isinstance(message, OSError) and message.strerror:
        message = f"{message.filename!r}: {message.strerror}" if message.filename else message.strerror
    print(f"{script}: {one_line(str(message))}", file=sys.stderr)
    return code


def one_line(message: str) -> str:
    """Put a message on one line, with unprintable characters such as tabs escaped as in Python."""
    joined = re.sub(r"\s*\n\s*", " ", message.strip())
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in joined)
