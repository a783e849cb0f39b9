"""What is known about a setting: a field of a frozen dataclass says it once, and everything else follows from it."""

import dataclasses
import enum
import math
import numbers
import sys
from typing import Any

from ddjax.errors import InputError, check_number
from ddjax.registry import Registry


class Role(enum.Enum):
    """What a setting changes."""

    HYPERPARAMETER = "a number that is data of a compiled program, so another value compiles nothing anew"
    PROGRAM = "the compiled program: its shapes or its operations"
    DATA = "the arrays that a program is fed"
    SEED = "the random draws"
    EVALUATION = "when devices are tested, and on what"
    EXECUTION = "where and how a program runs, but not what it computes"
    OUTPUT = "what is written"


class Sweep(enum.Enum):
    """How a sweep takes a setting."""

    LIST = "as a comma list"
    WHOLE = "once, for the whole sweep"
    NEVER = "not at all"


@dataclasses.dataclass(frozen=True)
class Field:
    """What is known about one setting.

    Attributes:
      name: of the setting and of its flag.
      kind: `str`, `int`, `float`, `bool`, or `tuple` for a flag that may be repeated.
      default: its value where nothing is said.
      help: what it is, for a reader.
      section: the title under which `--help` shows it.
      role: what it changes.
      unit: what its value counts.
      minimum: the least value, included unless `positive`.
      maximum: the largest value, included.
      positive: whether 0 is refused.
      registry: what it chooses from, by a specification.
      shared: whether it may be given to an algorithm that does not use it, so that one flag file serves several.
      sweep: how a sweep takes it.
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
        """The help, with what the registry knows at this time."""
        return self.help + (f" One of {self.registry.usage()}." if self.registry else "")

    def parse(self, text: str) -> Any:
        """The value that `text` stands for; raises `InputError` where it is none of this kind."""
        try:
            if self.kind is bool:
                return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
            return self.kind(text)
        except (ValueError, KeyError):
            names = {int: "a whole number", float: "a number", bool: "true or false"}
            raise InputError(f"--{self.name} takes {names.get(self.kind, 'a text')}, got {text!r}") from None

    def check(self, value: Any) -> None:
        """Raises `InputError` for a value of another kind or out of bounds."""
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
    """A field of a settings class; see `Field` for what may be said `about` it."""
    return dataclasses.field(default=default, metadata={"help": help, **about})


def fields(settings: Any) -> dict[str, Field]:
    """What is known about the fields of a settings class, or of an instance, by name."""
    return {
        field.name: Field(field.name, type(field.default), field.default, **field.metadata)
        for field in dataclasses.fields(settings)
    }
