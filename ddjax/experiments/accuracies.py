"""Parsing of lists of accuracies."""

import math

from ddjax.errors import InputError


def parse_accuracies(text: str) -> list[float]:
    """Parse comma-separated accuracies in (0, 1].

    Raises:
      InputError: the text is not a list of such numbers.
    """
    try:
        targets = [float(target) for target in text.split(",") if target]
    except ValueError:
        targets = [math.nan]
    if not all(0 < target <= 1 for target in targets):
        raise InputError(f"target_accuracy takes comma-separated numbers in (0, 1], got {text!r}")
    return targets
