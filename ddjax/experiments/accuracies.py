"""Accuracies that a user lists."""

import math

from ddjax.errors import InputError


def parse_accuracies(text: str) -> list[float]:
    """Parse accuracies in (0, 1] that are joined by commas.

    Raises:
      InputError: the text holds anything else.
    """
    try:
        targets = [float(target) for target in text.split(",") if target]
    except ValueError:
        targets = [math.nan]
    if not all(0 < target <= 1 for target in targets):
        raise InputError(f"target_accuracy takes numbers in (0, 1] joined by commas, got {text!r}")
    return targets
