"""Drawing of optional figures: a command also succeeds if they cannot be drawn."""

import contextlib
import sys
from collections.abc import Iterator

from ddjax.experiments.flags import one_line


@contextlib.contextmanager
def optional(script: str, figures: str, remedy: str) -> Iterator[None]:
    """Let a command continue, with one line on stderr, if a figure cannot be drawn or Matplotlib cannot be loaded.

    Args:
      script: name of the command.
      figures: name of the figures, for the line on stderr.
      remedy: end of the line on stderr; it says what was written anyway, and how to draw the figure later if possible.
    """
    try:
        yield
    except Exception as error:  # Matplotlib and its dependencies raise many kinds of errors
        reason = f"{type(error).__name__}: {error}"
        print(f"{script}: {one_line(f'{figures} could not be drawn ({reason[:300]}); {remedy}')}", file=sys.stderr)
