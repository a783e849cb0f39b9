"""Errors that a user can cause."""

import difflib
from collections.abc import Iterable


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
