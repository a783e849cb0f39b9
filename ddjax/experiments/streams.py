"""Stdout and stderr as a command meets them: closed, full, a pipe that nobody reads, an alphabet without Greek."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any

# What stands for letters that the alphabet of a stream lacks; others are escaped, as Python writes them.
_PLAIN = str.maketrans({"×": "x", "±": "+-", "–": "-", "−": "-", "…": "...", "µ": "u", "→": "->", "‖": "|", "²": "^2"})


class _Stream:
    """A text stream that is written to as long as that is possible; then what is written is lost.

    Args:
      stream: the stream.
      name: how a message calls it; without one, nothing is said where it cannot be written to.
    """

    def __init__(self, stream: Any, name: str = ""):
        self._stream, self._name = stream, name
        self._lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes what can be written."""
        if self._lost:
            return len(text)
        try:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = self._stream.encoding
                self._stream.write(text.translate(_PLAIN).encode(encoding, "backslashreplace").decode(encoding))
        except (OSError, ValueError) as error:  # ValueError: closed meanwhile
            self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Writes what is held back, if it can be written."""
        if self._lost:
            return
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._lose(error)

    def _lose(self, error: Exception) -> None:
        self._lost = True
        with contextlib.suppress(OSError, ValueError, AttributeError):
            # What the stream still holds goes there, as does all that others write, up to the end of the process.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            self._stream.flush()
        if self._name and isinstance(error, OSError) and error.errno != errno.EPIPE:
            print(f"{self._name} cannot be written to ({error.strerror}); going on without it", file=sys.stderr)


@contextlib.contextmanager
def tolerant(script: str) -> Iterator[None]:
    """Lets a command print whatever its stdout and stderr are: what they cannot take does not end it.

    Args:
      script: name of the command, for a message where stdout is full.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, and the next file to be opened must not take its place
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    own = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Stream(sys.stdout, f"{script}: stdout"), _Stream(sys.stderr)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = own
