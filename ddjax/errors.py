"""Errors that a user can cause."""

import difflib
import math
from collections.abc import Iterable
from typing import Any


class InputError(ValueError):
    """A user's mistake: one line that says what is wrong, what was given and what is accepted."""


class NonFiniteError(FloatingPointError):
    """A loss or a soft decision became NaN or infinite.

    Attributes:
      round: the round (counted from 1) in which it happened.
      device: the first device it happened on.
    """

    def __init__(self, round: int, device: int):
        super().__init__(
            f"device {device} is no longer finite in round {round}; "
            "try a smaller learning rate, distillation weight or consensus step size"
        )
        self.round, self.device = round, device


def suggest(kind: str, given: str, accepted: Iterable[str]) -> InputError:
    """The error for an unknown name, with the nearest known one where there is one."""
    accepted = sorted(accepted)
    near = difflib.get_close_matches(given, accepted, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return InputError(f"unknown {kind} {given!r}; {hint}accepted: {', '.join(accepted)}")


def check_number(
    name: str, value: Any, minimum: float = 0.0, maximum: float = math.inf, *, positive: bool = False
) -> None:
    """Refuses a number out of bounds, or not a number.

    Args:
      name: of what it is.
      value: a number; anything else, such as a schedule or a value that is traced, passes.
      minimum: the least value, included unless `positive`.
      maximum: the largest value, included.
      positive: whether the least value is refused.

    Raises:
      InputError: the number is out of bounds.
    """
    if not isinstance(value, int | float):
        return
    if not minimum <= value <= maximum or (positive and value == minimum):
        if maximum < math.inf:
            accepted = f"lie in {'(' if positive else '['}{minimum:g}, {maximum:g}]"
        else:
            accepted = "be positive" if positive and minimum == 0 else f"be at least {minimum:g}"
        raise InputError(f"{name} must {accepted}, got {value}")
