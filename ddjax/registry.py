"""Registries of named parts.

Each part is registered once, with its usage, the bounds of its arguments and its settings.

A specification is a name followed by arguments, each after a colon, such as `watts_strogatz:4:0.1`. To add your own
part, add an `Entry` to the registry of its kind (`ddjax.mixing.MIXERS`, `ddjax.networks.TOPOLOGIES`, …) in a file that
`--include=FILE.py` imports.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from ddjax.errors import InputError, suggest

Parser = Callable[[str], Any]


def whole(minimum: int = 0, maximum: int = 2**31 - 1) -> Parser:
    """Make a parser of whole numbers with inclusive bounds; its `ValueError` says what is accepted."""
    accepted = f"a whole number of at least {minimum}" if maximum == 2**31 - 1 else f"from {minimum} to {maximum}"

    def parse(text: str) -> int:
        if not text.removeprefix("-").isdecimal() or not minimum <= int(text) <= maximum:
            raise ValueError(f"must be {accepted}")
        return int(text)

    return parse


def number(minimum: float = -math.inf, maximum: float = math.inf, *, positive: bool = False) -> Parser:
    """Make a parser of finite numbers with inclusive bounds; with `positive`, the numbers must also be above 0."""
    if positive:
        accepted = "a positive number" if maximum == math.inf else f"a positive number up to {maximum:g}"
    elif maximum < math.inf:
        accepted = f"a number from {minimum:g} to {maximum:g}"
    else:
        accepted = f"a number of at least {minimum:g}" if minimum > -math.inf else "a number"

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and minimum <= value <= maximum) or (positive and value <= 0):
            raise ValueError(f"must be {accepted}")
        return value

    return parse


class Argument(NamedTuple):
    """Argument of a specification.

    Attributes:
      name: placeholder in the usage, such as `K`.
      parse: `(text) → value`; raises a `ValueError` that says what is accepted, such as `must be a positive number`.
      optional: whether the argument may be left out, together with all arguments that follow.
    """

    name: str
    parse: Parser = str
    optional: bool = False


@dataclasses.dataclass(frozen=True)
class Entry:
    """Named part.

    Attributes:
      name: name with which a specification begins.
      build: function that makes the part; its inputs besides the arguments depend on the kind of part.
      arguments: the arguments in a specification, in order. If `parse` of the last argument is `str`, this argument
        takes the rest of the specification, colons included.
      uses: settings that have an effect if the part is chosen. A setting that some entries name has an effect only if
        one of these entries is chosen.
    """

    name: str
    build: Callable[..., Any]
    arguments: tuple[Argument, ...] = ()
    uses: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All settings that the entry names: those that are passed to `build`, and `uses`."""
        return (*self.taken, *self.uses)

    @property
    def taken(self) -> tuple[str, ...]:
        """Settings that are passed to `build`."""
        return ()

    @property
    def usage(self) -> str:
        """The form of a specification, such as `inverse_power:A[:TAU]`."""
        text = self.name
        for argument in self.arguments:
            text += f"[:{argument.name}" if argument.optional else f":{argument.name}"
        return text + "]" * sum(argument.optional for argument in self.arguments)


@dataclasses.dataclass(frozen=True)
class ConfiguredEntry(Entry):
    """Named part that is built from settings.

    Attributes:
      settings: map from each parameter of `build` to the name of the setting that supplies its value.
    """

    settings: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def taken(self) -> tuple[str, ...]:
        """Settings that are passed to `build`."""
        return tuple(self.settings.values())


E = TypeVar("E", bound=Entry)


class Choice(NamedTuple, Generic[E]):
    """Parsed specification.

    Attributes:
      spec: the text.
      entry: the entry that the text names.
      arguments: values of the arguments, without the optional arguments at the end that were left out.
    """

    spec: str
    entry: E
    arguments: tuple[Any, ...]

    def build(self, *args: Any, **kwargs: Any) -> Any:
        """Call `build` of the entry with `args`, then the arguments of the specification, then `kwargs`."""
        return self.entry.build(*args, *self.arguments, **kwargs)


_registries: list["Registry"] = []


@contextlib.contextmanager
def all_or_nothing() -> Iterator[None]:
    """Undo all registrations in a block if the block fails."""
    before = [dict(registry._entries) for registry in _registries]
    try:
        yield
    except BaseException:
        for registry, entries in zip(_registries, before, strict=False):
            registry._entries = entries
        raise


class Registry(Generic[E]):
    """Entries of one kind, by name.

    Args:
      kind: name of the kind in error messages, such as `topology`.
    """

    def __init__(self, kind: str):
        self.kind = kind
        self._entries: dict[str, E] = {}
        self._closed = False
        _registries.append(self)

    def add(self, entry: E) -> None:
        """Register an entry.

        Raises:
          InputError: the name is taken or has characters that no specification can contain, or the registry is closed.
        """
        if not entry.name.replace("_", "a").isalnum():
            raise InputError(
                f"the name of a {self.kind} must consist of letters, digits and underscores, got {entry.name!r}"
            )
        if self._closed:
            raise InputError(f"{self.kind} {entry.name!r}: this registry accepts no further entries")
        if entry.name in self._entries:
            raise InputError(f"{self.kind} {entry.name!r} is already registered; choose another name")
        self._entries[entry.name] = entry

    def close(self) -> None:
        """Refuse further entries."""
        self._closed = True

    def __getitem__(self, name: str) -> E:
        """Return the entry with this name; an `InputError` for an unknown name suggests the nearest known name."""
        if name not in self._entries:
            raise suggest(self.kind, name, self._entries)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def entries(self) -> tuple[E, ...]:
        """Return all entries, in the order in which they were registered."""
        return tuple(self._entries.values())

    def usage(self) -> str:
        """List the forms of all specifications, for a help text."""
        return ", ".join(entry.usage for entry in self._entries.values())

    def parse(self, spec: str) -> Choice[E]:
        """Parse a specification.

        Raises:
          InputError: the name is unknown, or arguments are missing, too many or out of bounds.
        """
        name, colon, rest = spec.partition(":")
        entry = self[name]
        kinds = entry.arguments
        fields = rest.split(":", len(kinds) - 1 if kinds and kinds[-1].parse is str else -1) if colon else []
        needed = sum(not argument.optional for argument in kinds)
        if not needed <= len(fields) <= len(kinds) or not all(fields):
            raise InputError(f"{self.kind} {spec!r}: expected {entry.usage!r}")
        values = []
        for argument, field in zip(kinds, fields, strict=False):
            try:
                values.append(argument.parse(field))
            except ValueError as error:
                raise InputError(
                    f"{self.kind} {spec!r}: {argument.name} {error}, got {field!r}; expected {entry.usage!r}"
                ) from None
        return Choice(spec, entry, tuple(values))
