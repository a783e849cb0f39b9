"""Errors that a user can cause."""

import difflib
import math
import os
from collections.abc import Iterable
from typing import Any


class InputError(ValueError):
    """Mistake of a user; the message says in one line what is wrong, what was given and what is accepted."""


class DivergedError(FloatingPointError):
    """Diverged run: a loss or soft decision is not finite, or a private loss is far above its value at the start.

    Args:
      round: number of the round in which the run diverged, counted from 1.
      device: number of the device that diverged; the lowest number if several devices diverged.
      loss: private loss of this device, smoothed over its optimizer steps; NaN if a loss or soft decision is not
        finite.
      start: private loss of this device at the start of the run (see `simulation.watch.Watch`).
    """

    def __init__(self, round: int, device: int, loss: float = math.nan, start: float = math.nan):
        if math.isnan(loss):
            found = f"a loss or soft decision of device {device} is no longer finite in round {round}"
        else:
            found = (
                f"the private loss of device {device} is {loss:.3g} in round {round}, but was {start:.3g} at the start"
            )
        super().__init__(f"{found}; try a smaller learning rate, distillation weight or consensus step size")
        self.round, self.device = round, device


def no_file(path: str) -> InputError:
    """Make the error for a path at which there is no file, or only a symbolic link whose target does not exist."""
    full = os.path.expanduser(path)
    if os.path.islink(full):
        return InputError(f"{path!r} is a link to {os.readlink(full)!r}, which does not exist")
    return InputError(f"there is no file {path!r}")


def suggest(kind: str, given: str, accepted: Iterable[str]) -> InputError:
    """Make the error for an unknown name; it suggests the most similar known name, if any is similar."""
    accepted = sorted(accepted)
    near = difflib.get_close_matches(given, accepted, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return InputError(f"unknown {kind} {given!r}; {hint}accepted: {', '.join(accepted)}")


def check_number(
    name: str, value: Any, minimum: float = 0.0, maximum: float = math.inf, *, positive: bool = False
) -> None:
    """Refuse a number that is out of bounds or NaN.

    Args:
      name: name of the setting, for the error message.
      value: value to check; only Python numbers are checked, so a schedule or a traced value passes.
      minimum: the smallest accepted value, unless `positive` excludes it.
      maximum: the largest accepted value.
      positive: whether the number must be greater than `minimum`.

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
