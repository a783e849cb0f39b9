"""Descriptions of settings, from which flags, checks and sweeps follow."""

import dataclasses
import enum
import math
import numbers
import sys
from typing import Any

from ddjax.errors import InputError, check_number
from ddjax.registry import Registry


class Role(enum.Enum):
    """Part of a run that a setting changes."""

    HYPERPARAMETER = "a number that is an input of the compiled program, so a new value needs no new compilation"
    PROGRAM = "the compiled program: its shapes or its operations"
    DATA = "the arrays that are inputs of a program"
    SEED = "the random draws"
    EVALUATION = "when devices are evaluated, and on which examples"
    EXECUTION = "where and how a program runs, but not what it computes"
    OUTPUT = "the files that are written"


class Sweep(enum.Enum):
    """How a sweep accepts a setting."""

    LIST = "as a comma-separated list"
    WHOLE = "once, for the whole sweep"
    NEVER = "not at all"


@dataclasses.dataclass(frozen=True)
class Field:
    """Description of one setting.

    Attributes:
      name: name of the setting and of its flag.
      kind: `str`, `int`, `float`, `bool`, or `tuple` for a flag that may be repeated.
      default: value if the setting is not given.
      help: text that `--help` shows.
      section: title under which `--help` shows the setting.
      role: part of a run that the setting changes.
      unit: unit of the value, such as `rounds`.
      minimum: smallest allowed value, unless `positive` excludes it.
      maximum: largest allowed value.
      positive: whether 0 is refused.
      registry: registry that holds the allowed values.
      shared: whether algorithms that do not use the setting accept it, so that one flag file serves several algorithms.
      sweep: how a sweep accepts the setting.
    """

    name: str
    kind: type
    default: Any
    help: str
    section: str
    role: Role = Role.OUTPUT
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    positive: bool = False
    registry: Registry | None = None
    shared: bool = False
    sweep: Sweep = Sweep.LIST

    @property
    def text(self) -> str:
        """Help text, with the current entries of the registry."""
        return self.help + (f" One of {self.registry.usage()}." if self.registry else "")

    def parse(self, text: str) -> Any:
        """Parse a value; raise `InputError` if the text is not a value of the field's type."""
        try:
            if self.kind is bool:
                return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
            return self.kind(text)
        except (ValueError, KeyError):
            names = {int: "a whole number", float: "a number", bool: "true or false"}
            raise InputError(f"--{self.name} takes {names.get(self.kind, 'a text')}, got {text!r}") from None

    def check(self, value: Any) -> None:
        """Raise `InputError` if the value has the wrong type or is out of bounds."""
        kinds = {int: numbers.Integral, float: numbers.Real, tuple: (tuple, list)}
        accepted: Any = kinds.get(self.kind, self.kind)
        if not isinstance(value, accepted) or (isinstance(value, bool) and self.kind is not bool):
            named = "several texts, as in ('a.py',)" if self.kind is tuple else f"a value of type {self.kind.__name__}"
            raise InputError(f"{self.name} takes {named}, got {value!r}")
        if self.minimum is not None:
            self._check_bounds(self.kind(value), self.minimum)

    def _check_bounds(self, value: Any, minimum: float) -> None:
        largest = 2**31 - 1 if self.kind is int else sys.float_info.max
        if self.maximum is None and value > largest:
            raise InputError(f"{self.name} must be at most {largest:.10g}, got {value}")
        bound = math.inf if self.maximum is None else self.maximum
        check_number(self.name, value, minimum, bound, positive=self.positive)


def setting(default: Any, help: str, **about: Any) -> Any:
    """Make a field of a settings class; `about` holds the other attributes of its `Field`."""
    return dataclasses.field(default=default, metadata={"help": help, **about})


def fields(settings: Any) -> dict[str, Field]:
    """Return name → field, for each field of a settings class or of an instance of it."""
    return {
        field.name: Field(field.name, type(field.default), field.default, **field.metadata)
        for field in dataclasses.fields(settings)
    }
