"""Stdout and stderr of a command, which may be closed, full, unread, or unable to encode Greek letters."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any

# Replacements for letters that the encoding of a stream lacks; other letters are escaped as in Python.
_PLAIN = str.maketrans({"×": "x", "±": "+-", "–": "-", "−": "-", "…": "...", "µ": "u", "→": "->", "‖": "|", "²": "^2"})


class _Stream:
    """Text stream that drops everything written to it after a write has failed.

    Args:
      stream: the stream.
      name: name of the stream in the message about a failed write; empty for no message.
    """

    def __init__(self, stream: Any, name: str = ""):
        self._stream, self._name = stream, name
        self._lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text, or drop it if the stream is lost."""
        if self._lost:
            return len(text)
        try:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = self._stream.encoding
                self._stream.write(text.translate(_PLAIN).encode(encoding, "backslashreplace").decode(encoding))
        except (OSError, ValueError) as error:  # ValueError: the stream was closed meanwhile
            self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Write the buffered text, or drop it if the stream is lost."""
        if self._lost:
            return
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._lose(error)

    def _lose(self, error: Exception) -> None:
        self._lost = True
        with contextlib.suppress(OSError, ValueError, AttributeError):
            # The null device takes the buffer, and everything that is written until the process ends.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            self._stream.flush()
        if self._name and isinstance(error, OSError) and error.errno != errno.EPIPE:
            print(f"{self._name} cannot be written to ({error.strerror}); continuing without it", file=sys.stderr)


@contextlib.contextmanager
def tolerant(script: str) -> Iterator[None]:
    """Keep a command running when writing to its stdout or stderr fails.

    Args:
      script: name of the command, for the message if stdout is full.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed; the next file to be opened must not take its place
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    own = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Stream(sys.stdout, f"{script}: stdout"), _Stream(sys.stderr)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = own
