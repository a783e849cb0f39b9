"""Sweep over every combination of values in comma-separated flags, with one table of results.

    python scripts/sweep.py --algorithm=local,dsgd,distillation --devices=8,32,128 --seeds=5 --sweep_dir=runs/sizes

The sweep writes into --sweep_dir: results.csv and results.parquet (a row per cell and evaluation, a column per flag),
timings.csv, failures.csv, and a folder per cell. After a stop, the same command continues the sweep. `report.py` draws
the figures.
"""

import contextlib
import hashlib
import math
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from ddjax.errors import InputError
from ddjax.experiments import execution, files
from ddjax.experiments.fields import fields
from ddjax.experiments.flags import Given, run
from ddjax.experiments.scalars import check_tensorboard
from ddjax.experiments.settings import Settings
from ddjax.experiments.sweeps import estimates, plan
from ddjax.experiments.sweeps.cluster import Cluster
from ddjax.experiments.sweeps.estimates import Estimate
from ddjax.experiments.sweeps.forecast import Forecast, Work
from ddjax.experiments.sweeps.lanes import Lanes
from ddjax.experiments.sweeps.plan import LISTED, WHOLE, Cell, SweepSettings
from ddjax.experiments.sweeps.progress import Display
from ddjax.experiments.sweeps.queue import Program
from ddjax.experiments.sweeps.store import Store
from ddjax.experiments.units import duration
from ddjax.experiments.usage import check_used


class Place(Protocol):
    """Place that runs cells: this process or a cluster.

    Attributes:
      longest_first: whether the longest cells run first (`queue.longest`). Otherwise, an idle lane prefers cells of
        the program that it compiled last (`Queue.take`).
    """

    longest_first: bool

    def count(self) -> int:
        """Return how many cells run at the same time."""

    def environment(self) -> Mapping[str, Any]:
        """Return the versions and the backend of the place."""

    def peak(self) -> float:
        """Measure the floating-point operations per second of a matrix product on one accelerator."""

    def measure(self, cells: Sequence[Cell]) -> Iterable[Estimate]:
        """Estimate the time and memory that each cell takes; raise `InputError` if a cell cannot be run."""

    def work(self, programs: Sequence[Program], store: Store, display: Display) -> None:
        """Run all cells, and collect the tables every minute."""


def folder(given: str, cells: Sequence[Cell], asked: str = "") -> Path:
    """Find the folder of a sweep: `--sweep_dir`, or a name made from its cells and its selection, `asked`."""
    names = "".join(sorted(cell.name for cell in cells)) + asked
    try:
        return Path(given or f"runs/sweep-{hashlib.sha256(names.encode()).hexdigest()[:8]}").expanduser()
    except RuntimeError as error:
        raise InputError(f"sweep_dir {given!r}: {error}") from None


def check(cells: Sequence[Cell]) -> None:
    """Check the settings of every cell; raise `InputError` with the label of a cell whose settings are wrong."""
    for cell in cells:
        try:
            cell.settings.check()
            check_used(cell.settings)
        except InputError as error:
            raise InputError(f"cell {cell.label}: {error}") from None


def group_programs(cells: Sequence[Cell], store: Store, place: Place) -> list[Program]:
    """Group cells by compiled program, with estimates, and print a description of their data."""
    alike: dict[tuple, list[Cell]] = {}
    for cell in cells:
        alike.setdefault(cell.program, []).append(cell)
    speed = place.peak() if cells else 0
    programs: list[Program] = []
    said: set[tuple[str, ...]] = set()
    for group, estimate in zip(alike.values(), place.measure([group[0] for group in alike.values()]), strict=True):
        store.check_data(estimate.files)
        settings, lines = group[0].settings, estimate.lines
        parts = estimates.parts(estimate.operations, settings.rounds, speed)
        programs.append(Program(group, estimate.memory, parts, estimate.compiling))
        if (settings.dataset, *lines[:2]) not in said:  # printed once, not for each number of devices
            said.add((settings.dataset, *lines[:2]))
            print("\n".join([settings.dataset, *(f"  {line}" for line in lines)]), flush=True)
    return programs


@contextlib.contextmanager
def opened(scheduler: str, host_devices: int, todo: Sequence[Cell], precision: str, store: Store) -> Iterator[Place]:
    """Open this process or a Dask cluster as the place of a sweep, for as long as the context lasts."""
    if scheduler and todo:
        with Cluster(scheduler, host_devices or execution.cores(), todo, precision, store) as cluster:
            yield cluster
    else:
        yield Lanes(Settings(host_devices=host_devices, precision=precision))


def planned(given: Given, settings: SweepSettings) -> list[Cell]:
    """Make the cells that the command line describes."""
    whole = {name: given.values[name] for name in WHOLE}
    lists = {name: given.values[name] for name in LISTED if name in given.present}
    return plan.cells(lists, whole, settings)


def sweep(given: Given) -> int:
    """Run the sweep that the command line describes, and return the exit code."""
    settings = given.take(SweepSettings)
    cells = planned(given, settings)
    plan.check_scheduler(settings, given.values["host_devices"])
    if given.values["tensorboard"]:
        check_tensorboard()
    column = plan.selection_column(settings, cells)
    if column:
        return _selected(cells, column, given, settings)
    return execute(cells, folder(settings.sweep_dir, cells), given, settings)[0]


def _selected(cells: Sequence[Cell], column: str, given: Given, settings: SweepSettings) -> int:
    """Run trials on validation data, pick the best settings, and run these on the test set."""
    from ddjax.experiments.sweeps import selection  # this module and the next are slow to import
    from ddjax.experiments.sweeps.frontier import frontier

    asked = f"{settings.select} {settings.select_per} {settings.trials} {settings.trial_seeds}"
    path = folder(settings.sweep_dir, cells, asked).resolve()
    tried = path.with_name(f"{path.name}-trials")
    trials = selection.trials(cells, settings)
    if not (path / "sweep.json").exists():
        Store(path, [])  # raises an error if the folder cannot hold a sweep
    elif missing := sum(not Store(tried, trials).holds(cell) for cell in trials):
        raise InputError(
            f"{str(path)!r} holds runs of picked settings on the test set, but {missing} of these trials were not run "
            "before them; name a new sweep_dir"
        )
    print(f"trials on validation data, written to {tried}", flush=True)
    # `execute` reports failures, and failed trials cannot be picked.
    _, trials = execute(trials, tried, given, settings, " for the trials")
    choices = selection.choose(trials, pd.read_csv(tried / "results.csv"), column, settings)
    seeds = selection.seeds_of(cells)
    print(f"picked settings on the test set, written to {path}", flush=True)
    code, _ = execute(selection.finals(choices, seeds), path, given, settings, " for the test runs")
    picked = selection.selection_table(choices)
    tested = selection.test_table(choices, seeds, pd.read_csv(path / "results.csv"), column)
    files.replace(path / "selection.csv", picked.to_csv(index=False, lineterminator="\n"))
    files.replace(path / "tested.csv", tested.to_csv(index=False, lineterminator="\n"))
    for name, content in frontier(tested, selection.metric_of(column)).items():
        files.replace(path / name, content)
    for table in (picked, tested):
        print(table[table["bytes_budget"] == math.inf].drop(columns="bytes_budget").to_string(index=False))
    gone = sorted({cell.settings.algorithm for cell in trials} - {choice.system["algorithm"] for choice in choices})
    none = f"the tables have no rows for {', '.join(gone)}, because none of their trials ran to its end" if gone else ""
    for note in filter(None, (none, selection.uneven(choices), _lost(tested))):
        print(f"note: {note}")
    return 3 if gone else code


def _lost(tested: pd.DataFrame) -> str:
    """Write a note on the runs with picked settings that diverged or failed; empty if there are none."""
    whole = tested[(tested["bytes_budget"] == math.inf) & (tested["lost"] > 0)]
    told = ", ".join(f"{row.algorithm} {row.lost}" for row in whole.itertuples())
    return f"runs on the test set that diverged or failed are left out of the means: {told}" if told else ""


def execute(
    cells: Sequence[Cell], path: Path, given: Given, settings: SweepSettings, stage: str = ""
) -> tuple[int, list[Cell]]:
    """Run cells into a folder, and return the exit code and the cells with their names in the folder.

    Args:
      cells: the cells.
      path: the folder.
      given: the command line.
      settings: settings of the sweep.
      stage: words that follow "about … left" if these cells are not the whole sweep.
    """
    precision = plan.process_precision(cells)
    number, count = plan.parse_shard(settings.shard)
    check(cells)
    store = Store(path, cells)
    cells = store.cells
    mine = cells[number::count]
    todo = [cell for cell in mine if not store.holds(cell)]
    shard = f", {len(mine)} of them in shard {settings.shard}" if count > 1 else ""
    print(f"{len(cells)} cells{shard}; {len(mine) - len(todo)} are done already", flush=True)
    with opened(settings.scheduler, given.values["host_devices"], todo, precision, store) as place:
        compiled = group_programs(todo, store, place)
        works = {each: Work(len(each.cells), each.parts, each.compiling) for each in compiled}
        forecast = Forecast(works, place.count, place.longest_first)
        if todo:
            at_once, left = min(place.count(), len(todo)), duration(forecast.left(0))
            print(
                f"{len(todo)} cells to run in {len(compiled)} compiled programs, {at_once} cells at a time; "
                f"about {left} left{stage}, as a first guess",
                flush=True,
            )
        store.create(shlex.join(["python", *sys.argv]), place.environment())
        try:
            if todo:
                with Display(len(mine), len(mine) - len(todo), forecast, stage) as display:
                    place.work(compiled, store, display)
        finally:
            failures = store.collect()
    failed = failures[failures["cell"].isin([cell.name for cell in mine])]
    there = sum(store.holds(cell) for cell in cells)
    draws = f"python scripts/report.py {shlex.quote(str(store.path))} draws them"
    print(f"{there} of {len(cells)} cells are in {store.path}; {draws}")
    if not len(failed):
        return 0, cells
    reasons = ", ".join(f"{number} {status}" for status, number in failed["status"].value_counts().items())
    print(f"sweep.py: {reasons}; {store.path}/failures.csv says why", file=sys.stderr)
    return 3, cells


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with the arguments of the process, or with `argv`, and return its exit code."""
    summary = "Run every combination of values in comma-separated flags: python scripts/sweep.py --name=value,value …"
    kept = "finished cells are kept, and the same command continues the sweep"
    return run(sweep, fields(SweepSettings) | plan.list_fields(), summary, argv, kept=kept)
