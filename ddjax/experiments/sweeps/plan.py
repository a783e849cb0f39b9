"""The cells of a sweep: the product of comma lists of flags, less what is excluded."""

import hashlib
import itertools
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from absl import flags

from ddjax.errors import InputError, suggest
from ddjax.experiments import options
from ddjax.experiments.build import NUMBERS

# Flags of train.py that a sweep has no use for: it goes on by itself where it was stopped, in one process a shard.
_LEFT_OUT = ("output_dir", "resume", "checkpoint_every", "coordinator_address", "num_processes", "process_id")
# Flags of the sweep as a whole, not lists.
_WHOLE = ("target_accuracy", "tensorboard", "host_devices")
# Data of a compiled program, beside its numbers: where these alone differ, nothing compiles anew if shapes are equal.
_DATA = ("seed", "partition", "dirichlet_alpha", "eval_every", "target_accuracy")

SECTIONS: dict[str, dict[str, tuple]] = {
    "The sweep": {
        "seeds": (1, "How many seeds, counted from --seed; or list them there."),
        "zip": (
            [],
            "Lists that go together instead of being multiplied, as in devices,rounds; repeatable.",
        ),
        "exclude": ([], "Cells to leave out, as in algorithm=dsgd,devices=1024; repeatable."),
        "sweep_dir": ("", "Folder of the sweep, new or its own; default runs/sweep-<hash of the cells>."),
        "shard": ("0/1", "i/n: of n processes on one folder this is number i, from 0, and runs every n-th cell."),
    }
} | {
    f"{title} (comma lists)": {
        name: (default if name in _WHOLE else str(default), text)
        for name, (default, text) in section.items()
        if name not in _LEFT_OUT
    }
    for title, section in options.SECTIONS.items()
}


class Cell(NamedTuple):
    """One run.

    Attributes:
      name: the algorithm and a hash of all its settings.
      label: what tells it from the other cells.
      given: its flags.
      settings: flag → value as run; `None` where what is run does not use it.
    """

    name: str
    label: str
    given: flags.FlagValues
    settings: dict[str, Any]

    @property
    def program(self) -> tuple:
        """Cells with the same one are run by the same compiled program, if shapes are the same."""
        return tuple((name, value) for name, value in self.settings.items() if name not in (*_DATA, *NUMBERS))


def cells(swept: flags.FlagValues) -> list[Cell]:
    """The cells of a sweep, each once, seeds innermost.

    A flag that a cell's algorithm does not use is dropped from it, and of cells that are then alike one is left:
    `--algorithm=local,dsgd --topology=ring,torus` is three cells.

    Raises:
      InputError: a list, a zip or an exclusion that is wrong, or no cell at all.
    """
    lists = {name: str(swept[name].value).split(",") for name in _listed() if name in swept and swept[name].present}
    whole = [f"--{name}={swept[name].value}" for name in _WHOLE if name != "host_devices" and name in swept]
    seeds = lists.pop("seed", ["0"])
    if swept["seeds"].present:
        if len(seeds) > 1 or not seeds[0].isdecimal() or not 0 < swept.seeds < 2**31:
            raise InputError(
                f"--seeds takes a positive number, and --seed then the first, got {swept.seeds} and {seeds}"
            )
        seeds = [str(int(seeds[0]) + number) for number in range(swept.seeds)]
    axes = [*_axes(lists, swept.zip), [{"seed": seed} for seed in seeds]]
    excluded = {text: _exclusion(text) for text in swept.exclude}
    matched: set[str] = set()
    found: dict[str, tuple[flags.FlagValues, dict[str, Any]]] = {}
    for point in itertools.product(*axes):
        texts = {name: text for part in point for name, text in part.items()}
        given = options.parse([*whole, *(f"--{name}={text}" for name, text in texts.items())])
        unused = options.unused(given)
        given = options.parse([*whole, *(f"--{name}={text}" for name, text in texts.items() if name not in unused)])
        settings = {name: None if name in unused else given[name].value for name in (*_listed(), "target_accuracy")}
        outside = {text for text, values in excluded.items() if all(settings[n] == v for n, v in values.items())}
        matched |= outside
        if not outside:
            found.setdefault(_name(settings), (given, settings))
    if idle := [text for text in excluded if text not in matched]:
        raise InputError(f"--exclude={idle[0]} fits no cell of this sweep")
    if not found:
        raise InputError("this sweep has no cells: all are excluded")
    if idle := [n for n in lists if n in options.BELONGS and all(s[n] is None for _, s in found.values())]:
        raise InputError(f"--{idle[0]} is used by no cell; it belongs to {', '.join(options.BELONGS[idle[0]])}")
    used = {name: {s[name] for _, s in found.values() if s[name] is not None} for name in _listed()}
    varying = [name for name, values in used.items() if len(values) > 1]
    return [Cell(name, _label(settings, varying), given, settings) for name, (given, settings) in found.items()]


def process_precision(cells: Iterable[Cell]) -> str:
    """float64, which JAX has for a whole process, or float32, beside which the others are set cell by cell.

    Raises:
      InputError: float64 and another.
    """
    precisions = {cell.given.precision for cell in cells}
    if "float64" not in precisions:
        return "float32"
    if len(precisions) > 1:
        raise InputError(f"precision float64 is of a whole process, got {', '.join(sorted(precisions))}")
    return "float64"


def shard(swept: flags.FlagValues) -> tuple[int, int]:
    """`--shard` as number and count."""
    number, _, count = swept.shard.partition("/")
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise InputError(f"shard is i/n with i from 0 to n - 1, as in 0/4, got {swept.shard!r}")
    return int(number), int(count)


def _listed() -> list[str]:
    return [name for section in options.SECTIONS.values() for name in section if name not in (*_LEFT_OUT, *_WHOLE)]


def _axes(lists: dict[str, list[str]], zips: Iterable[str]) -> list[list[dict[str, str]]]:
    """Of each list, or of lists zipped, what it sets by turns."""
    together: dict[str, list[str]] = {}
    for text in zips:
        names = text.split(",")
        for name in names:
            if name not in lists:
                raise suggest("list to zip", name, lists)
            if name in together or names.count(name) > 1:
                raise InputError(f"--zip: {name} is zipped twice")
            together[name] = names
        lengths = {name: len(lists[name]) for name in names}
        if len(set(lengths.values())) > 1:
            counts = " and ".join(f"{name} has {length}" for name, length in lengths.items())
            raise InputError(f"--zip={text}: lists of one length are needed, but {counts} values")
    axes = []
    for name in lists:
        names = together.get(name, [name])
        if name == next(other for other in lists if other in names):
            axes.append([dict(zip(names, texts, strict=True)) for texts in zip(*map(lists.get, names), strict=True)])
    return axes


def _exclusion(text: str) -> dict[str, Any]:
    values, fresh = {}, options.parse([])
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals:
            raise InputError(f"--exclude={text}: {part!r} is not FLAG=VALUE")
        if name not in _listed():
            raise suggest("flag to exclude by", name, _listed())
        try:
            values[name] = fresh[name].parser.parse(value)
        except ValueError as error:
            raise InputError(f"--exclude={text}: {name}={value}: {error}") from None
    return values


def _name(settings: dict[str, Any]) -> str:
    identity = {name: value for name, value in settings.items() if name != "target_accuracy"}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return f"{settings['algorithm']}-{digest[:10]}"


def _label(settings: dict[str, Any], varying: list[str]) -> str:
    parts = [
        str(settings[name]) if name == "algorithm" else f"{name}={settings[name]}"
        for name in varying
        if settings[name] is not None
    ]
    return ", ".join(parts) or str(settings["algorithm"])
