"""Figures that a command can do without."""

import contextlib
import sys
from collections.abc import Iterator

from ddjax.experiments.flags import one_line


@contextlib.contextmanager
def optional(script: str, remedy: str) -> Iterator[None]:
    """Let a command go on, with one line on stderr, if a figure cannot be drawn or Matplotlib cannot be loaded.

    Args:
      script: name of the command.
      remedy: what was written all the same, and how the figure can be drawn later.
    """
    try:
        yield
    except Exception as error:  # Matplotlib and what it rests on raise many kinds
        reason = f"{type(error).__name__}: {error}"
        print(f"{script}: {one_line(f'no figure could be drawn ({reason[:300]}); {remedy}')}", file=sys.stderr)
