"""Cells of a sweep: the product of comma-separated lists of settings, without excluded combinations."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from ddjax.errors import InputError, suggest
from ddjax.experiments.extensions import digests
from ddjax.experiments.fields import Field, Role, Sweep, fields, setting
from ddjax.experiments.settings import Settings
from ddjax.experiments.usage import used, users
from ddjax.learning import TASKS

_sweep = partial(setting, section="The sweep")


@dataclasses.dataclass(frozen=True)
class SweepSettings:
    """Settings of a sweep as a whole."""

    seeds: int = _sweep(1, "Number of consecutive seeds, of which --seed is the first; or list the seeds in --seed.")
    zip: tuple[str, ...] = _sweep(
        (), "Lists whose values are paired instead of combined, as in devices,rounds; may be repeated."
    )
    exclude: tuple[str, ...] = _sweep((), "Cells to leave out, as in algorithm=dsgd,devices=1024; may be repeated.")
    sweep_dir: str = _sweep(
        "", "Folder of the sweep, new or from an earlier start; default runs/sweep-<hash of the cells>."
    )
    shard: str = _sweep(
        "0/1",
        "i/n: this process is number i, counted from 0, of n processes that share a folder; it runs every n-th cell.",
    )
    scheduler: str = _sweep(
        "",
        "HOST:PORT of a Dask scheduler whose workers run the cells (start each worker with `dask worker HOST:PORT "
        "--memory-limit=0`), or local. Needs pip install -e '.[dask]'.",
    )
    select: str = _sweep(
        "",
        "COLUMN@validation, as in accuracy_mean@validation: picks the settings of each system that are best in this "
        "column on validation data, and then uses the test set once. Values of --algorithm and of lists in the "
        "sections 'Data' and 'Devices and network' are compared; the best values of all other lists are picked.",
    )
    select_per: str = _sweep(
        "", "Comma-separated names of further lists whose values are compared, not picked, such as consensus."
    )
    trials: int = _sweep(0, "Number of combinations that are tried for each system, drawn at random; 0 for all.")
    trial_seeds: int = _sweep(0, "Number of seeds of each trial, counted from the first; 0 for all.")


LISTED = {name: field for name, field in fields(Settings).items() if field.sweep is Sweep.LIST}
WHOLE = {name: field for name, field in fields(Settings).items() if field.sweep is Sweep.WHOLE}


def list_fields() -> dict[str, Field]:
    """Make the flags of a sweep from `Settings`: comma-separated lists, and settings of the sweep as a whole."""
    lists = {name: dataclasses.replace(field, kind=str, default=str(field.default)) for name, field in LISTED.items()}
    return {
        name: dataclasses.replace(field, section=f"{field.section} (comma-separated lists)")
        for name, field in (lists | WHOLE).items()
    }


class Cell(NamedTuple):
    """One run of a sweep.

    Attributes:
      name: the algorithm and a hash of the cell's settings.
      label: values of the settings that tell the cell from other cells.
      settings: settings with which the cell runs.
      values: setting → value that the cell uses; `None` if the cell does not use the setting.
    """

    name: str
    label: str
    settings: Settings
    values: dict[str, Any]

    @property
    def program(self) -> tuple:
        """Key of the compiled program: cells with the same key and the same shapes share the program."""
        shaping = (Role.PROGRAM, Role.EXECUTION)
        return tuple((name, self.values[name]) for name, field in LISTED.items() if field.role in shaping)


def cells(lists: Mapping[str, str], whole: Mapping[str, Any], sweep: SweepSettings) -> list[Cell]:
    """Make the cells of a sweep, each once, in an order in which the seed changes fastest.

    A cell drops each setting that its algorithm does not use, and cells that are then alike become one cell:
    `--algorithm=local,dsgd --topology=ring,torus` makes three cells.

    Args:
      lists: setting → its values as given, separated by commas.
      whole: settings of the sweep as a whole, such as `target_accuracy`, by name.
      sweep: seeds, lists whose values are paired, and exclusions.

    Raises:
      InputError: a list, a zip or an exclusion is wrong, or no cell is left.
    """
    texts = {name: text.split(",") for name, text in lists.items()}
    seeds = _seeds(texts.pop("seed", ["0"]), sweep.seeds)
    axes = [*_axes(texts, sweep.zip), [{"seed": seed} for seed in seeds]]
    excluded = {text: _exclusion(text) for text in sweep.exclude}
    matched: set[str] = set()
    kept = []
    for point in itertools.product(*axes):
        chosen = {name: LISTED[name].parse(text) for part in point for name, text in part.items()}
        uses = used(Settings(**whole, **chosen))
        settings = Settings(**whole, **{name: value for name, value in chosen.items() if name in uses})
        values = _values(settings)
        outside = {text for text, wanted in excluded.items() if all(values[n] == v for n, v in wanted.items())}
        matched |= outside
        if not outside:
            kept.append(settings)
    if idle := [text for text in excluded if text not in matched]:
        raise InputError(f"--exclude={idle[0]} matches no cell of this sweep")
    if not kept:
        raise InputError("this sweep has no cells: all are excluded")
    found = gather(kept)
    for name in texts:
        if not LISTED[name].shared and all(cell.values[name] is None for cell in found):
            raise InputError(f"no cell uses --{name}; it belongs to {users(name)}")
    return found


def gather(several: Iterable[Settings]) -> list[Cell]:
    """Make one cell for each of these settings, without duplicates, with labels that tell the cells apart."""
    found: dict[str, tuple[Settings, dict[str, Any]]] = {}
    for settings in several:
        values = _values(settings)
        found.setdefault(cell_name(values), (settings, values))
    taken = {name: {v[name] for _, v in found.values() if v[name] is not None} for name in LISTED}
    varying = [name for name, values in taken.items() if len(values) > 1]
    return [Cell(name, _label(values, varying), settings, values) for name, (settings, values) in found.items()]


def _values(settings: Settings) -> dict[str, Any]:
    """Map every setting to the value that the run uses, or to `None` if the run does not use the setting."""
    uses = used(settings)
    values = {name: getattr(settings, name) if name in uses else None for name in LISTED}
    return values | ({"include": digests(settings.include)} if settings.include else {})


def _seeds(listed: list[str], count: int) -> list[str]:
    if count == 1:
        return listed
    if len(listed) > 1 or not listed[0].isdecimal() or not 0 < count < 2**31:
        raise InputError(
            f"--seeds takes a positive number, and --seed then takes only the first seed, got {count} and {listed}"
        )
    return [str(int(listed[0]) + number) for number in range(count)]


def process_precision(cells: Iterable[Cell]) -> str:
    """Find the precision with which a process starts: float64 if the cells use it, otherwise float32.

    Raises:
      InputError: some cells use float64 and others do not, but JAX can use float64 only in a whole process.
    """
    precisions = {cell.settings.precision for cell in cells}
    if "float64" not in precisions:
        return "float32"
    if len(precisions) > 1:
        raise InputError(
            f"all cells of a process must use float64 if one of them does, got {', '.join(sorted(precisions))}"
        )
    return "float64"


def parse_shard(text: str) -> tuple[int, int]:
    """Parse `--shard` into the shard's number and the number of shards; raise `InputError` if it is malformed."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise InputError(f"shard must be i/n with i from 0 to n - 1, as in 0/4, got {text!r}")
    return int(number), int(count)


def check_scheduler(settings: SweepSettings, host_devices: int) -> None:
    """Raise `InputError` if `--scheduler` is combined with a setting that does not apply to a cluster."""
    if settings.scheduler and parse_shard(settings.shard)[1] > 1:
        raise InputError("--shard is for processes that share a folder; with --scheduler, leave --shard out")
    if settings.scheduler not in ("", "local") and host_devices:
        raise InputError(
            "--host_devices is only for this machine; `dask worker --nthreads` sets how many cells a worker runs at "
            "the same time"
        )


def selection_column(sweep: SweepSettings, cells: Sequence[Cell]) -> str:
    """Find the column that `--select` names; empty for a sweep that picks nothing.

    Raises:
      InputError: `--select` is not `COLUMN@validation`, there are no validation examples, or another setting needs
        `--select` or conflicts with it.
    """
    if not sweep.select:
        for name in ("select_per", "trials", "trial_seeds"):
            if getattr(sweep, name):
                raise InputError(f"--{name} is only for a sweep that picks settings; give --select, too")
        return ""
    column, _, data = sweep.select.partition("@")
    measures = [f"{metric}_{kind}" for metric in TASKS for kind in ("mean", "min", "max")]
    measures += [f"ensemble_{metric}" for metric in TASKS]
    if data != "validation":
        raise InputError(
            f"--select={sweep.select} must end with @validation, as in accuracy_mean@validation: if settings are "
            "picked on the test set, its scores are too good"
        )
    if column not in measures:
        raise suggest("column to select by", column, measures)
    if any(not cell.settings.validation_examples for cell in cells):
        raise InputError(
            "--select picks settings on validation data; set the number of its examples with --validation_examples"
        )
    if any(cell.settings.evaluate_on != "test" for cell in cells):
        raise InputError("--select sets --evaluate_on by itself; leave --evaluate_on out")
    for name in ("trials", "trial_seeds"):
        if getattr(sweep, name) < 0:
            raise InputError(f"--{name} must be at least 0, got {getattr(sweep, name)}")
    if sweep.shard != "0/1":
        raise InputError("--select needs all trials before it can pick; use --scheduler instead of --shard")
    return column


def _axes(lists: dict[str, list[str]], zips: Iterable[str]) -> list[list[dict[str, str]]]:
    """Return, for each list or group of zipped lists, the settings that each of its values stands for."""
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
            raise InputError(f"--zip={text} needs lists of the same length, but {counts} values")
    axes = []
    for name in lists:
        names = together.get(name, [name])
        if name == next(other for other in lists if other in names):
            axes.append([dict(zip(names, texts, strict=True)) for texts in zip(*map(lists.get, names), strict=True)])
    return axes


def _exclusion(text: str) -> dict[str, Any]:
    """Parse an exclusion into the values that a cell must have to be left out."""
    values = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals:
            raise InputError(f"--exclude={text}: {part!r} is not FLAG=VALUE")
        if name not in LISTED:
            raise suggest("flag to exclude by", name, LISTED)
        try:
            values[name] = LISTED[name].parse(value)
        except InputError as error:
            raise InputError(f"--exclude={text}: {error}") from None
    return values


def cell_name(values: Mapping[str, Any]) -> str:
    """Name a cell by its algorithm and a hash of the settings that differ from their defaults.

    If a later version adds a setting, cells that have its default keep their names.
    """
    own = {
        name: value
        for name, value in values.items()
        if name not in LISTED or (value is not None and value != LISTED[name].default)
    }
    digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()
    return f"{values['algorithm'].replace(':', '_')}-{digest[:10]}"


def _label(values: dict[str, Any], varying: list[str]) -> str:
    parts = [
        str(values[name]) if name == "algorithm" else f"{name}={values[name]}"
        for name in varying
        if values[name] is not None
    ]
    return ", ".join(parts) or str(values["algorithm"])
