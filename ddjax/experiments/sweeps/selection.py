"""Selection of the settings of each system on validation data; only picked settings are run on the test set."""

import dataclasses
import math
import random
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ddjax.errors import InputError, suggest
from ddjax.experiments.fields import Role
from ddjax.experiments.reports.curves import interval
from ddjax.experiments.sweeps.plan import LISTED, Cell, SweepSettings, gather
from ddjax.learning import TASKS

# Values of lists in these sections are compared; values of lists in other sections are picked.
_COMPARED = ("Data", "Devices and network")


class Choice(NamedTuple):
    """Settings that were picked for one system at one number of bytes.

    Attributes:
      system: setting → value, for the settings that tell the system from others, including `algorithm`.
      budget: bytes that all devices and the server may send together; infinite for the whole run.
      trials: number of combinations of settings that were tried.
      lost: number of these combinations in which a run diverged or failed.
      value: value of the column that `--select` names, averaged over the seeds of the trials.
      picked: setting → picked value, for the settings that had several values in the trials.
      cell: one of the trials with the picked settings.
    """

    system: dict[str, Any]
    budget: float
    trials: int
    lost: int
    value: float
    picked: dict[str, Any]
    cell: Cell


def trials(cells: Sequence[Cell], sweep: SweepSettings) -> list[Cell]:
    """Make the cells that run on validation data: all cells of a sweep, or `--trials` combinations per system."""
    seeds = seeds_of(cells)[: sweep.trial_seeds or None]
    kept: list[Cell] = []
    for group in _grouped(cells, _system(sweep)).values():
        combinations = list(_grouped(group, _picked(sweep)).values())
        if 0 < sweep.trials < len(combinations):
            combinations = random.Random(0).sample(combinations, sweep.trials)
        kept += [cell for one in combinations for cell in one if cell.settings.seed in seeds]
    return gather(dataclasses.replace(cell.settings, evaluate_on="validation") for cell in kept)


def metric_of(column: str) -> str:
    """Find the metric of a column: `accuracy` or `mse`."""
    return column.removeprefix("ensemble_").partition("_")[0]


def seeds_of(cells: Iterable[Cell]) -> list[int]:
    """List the seeds of a sweep in ascending order."""
    return sorted({cell.settings.seed for cell in cells})


def choose(cells: Sequence[Cell], results: pd.DataFrame, column: str, sweep: SweepSettings) -> list[Choice]:
    """Pick the best combination of each system at each number of bytes (1, 2, 5, 10, …) and for the whole run.

    The value of a combination is the value of the column at the last evaluation within the number of bytes, averaged
    over seeds. A combination cannot be picked if one of its runs diverged or failed, or if one of its runs sent more
    than that number before the first evaluation after round 0.

    Raises:
      InputError: no combination of any system ran to its end, or the column was not measured.
    """
    if column not in results:
        raise InputError(f"the trials measured no {column}; name another column with --select")
    rows = {name: table.sort_values("round") for name, table in results.groupby("cell")}
    told = {name for name in LISTED if len({cell.values[name] for cell in cells} - {None}) > 1} | {"algorithm"}
    better = max if TASKS[metric_of(column)].best == "max" else min
    found = []
    for key, group in _grouped(cells, _system(sweep)).items():
        combinations = list(_grouped(group, _picked(sweep)).values())
        whole = [one for one in combinations if all(_sound(rows.get(cell.name), cell, column) for cell in one)]
        system = {name: value for name, value in key if name in told}
        if not whole:
            continue
        tables = [[rows[cell.name] for cell in one] for one in whole]
        for budget in [*_budgets(table for some in tables for table in some), math.inf]:
            values = [_at(some, budget, column) for some in tables]
            there = [number for number, value in enumerate(values) if not math.isnan(value)]
            if not there:
                continue
            best = better(there, key=values.__getitem__)
            picked = {name: value for name, value in _picked(sweep)(whole[best][0]) if name in told}
            lost = len(combinations) - len(whole)
            found.append(Choice(system, budget, len(combinations), lost, values[best], picked, whole[best][0]))
    if not found:
        raise InputError(f"no trial ran to its end with a {column}; see failures.csv of the trials")
    return found


def finals(choices: Iterable[Choice], seeds: Sequence[int]) -> list[Cell]:
    """Make the cells that run on the test set: the picked settings, with every seed."""
    settings = (choice.cell.settings for choice in choices)
    return gather(dataclasses.replace(one, evaluate_on="test", seed=seed) for one in settings for seed in seeds)


def selection_table(choices: Sequence[Choice]) -> pd.DataFrame:
    """Make a table with a row per choice: system, bytes, trials, picked settings, and value on validation data."""
    rows = [
        choice.system
        | {"bytes_budget": choice.budget, "trials": choice.trials, "lost": choice.lost, "validation": choice.value}
        | choice.picked
        for choice in choices
    ]
    return pd.DataFrame(rows)


def test_table(choices: Sequence[Choice], seeds: Sequence[int], results: pd.DataFrame, column: str) -> pd.DataFrame:
    """Make a table with a row per choice: mean score and worst device's score on the test set, and bytes sent.

    A column whose name begins with `±` holds the half-widths of 95 % t-intervals over seeds. Runs that diverged or
    failed are counted as `lost` and left out of the means.

    Args:
      choices: the picked settings.
      seeds: seeds of the cells that `finals` makes.
      results: results of these cells.
      column: column by which settings were picked; the table includes it, too.
    """
    metric = metric_of(column)
    worst = f"{metric}_{TASKS[metric].worst}"
    tables = {name: table.sort_values("round") for name, table in results.groupby("cell")}
    rows = []
    for choice in choices:
        there = finals([choice], seeds)
        whole = [tables[cell.name] for cell in there if _sound(tables.get(cell.name), cell, f"{metric}_mean")]
        within = [table[table["bytes_sent_total"] <= choice.budget] for table in whole]
        # A run that has only the evaluation of round 0 within the number of bytes is left out.
        ends = [some.iloc[-1] for some, table in zip(within, whole, strict=True) if len(some) > 1 or len(table) == 1]
        row = choice.system | {"bytes_budget": choice.budget, "seeds": len(ends), "lost": len(there) - len(whole)}
        for name in dict.fromkeys((f"{metric}_mean", worst, column, "bytes_sent_total")):
            row[name], row[f"± {name}"] = interval(np.array([end[name] for end in ends], float))
        rows.append(row)
    return pd.DataFrame(rows).drop(columns="± bytes_sent_total")


def uneven(choices: Sequence[Choice]) -> str:
    """Write a note that systems had different numbers of trials; empty if all had the same number."""
    counts = {_named(choice.system): choice.trials for choice in choices}
    if len(set(counts.values())) < 2:
        return ""
    told = ", ".join(f"{name} {count}" for name, count in counts.items())
    return f"systems had different numbers of trials: {told}; --trials={min(counts.values())} would make them equal"


Key = Callable[[Cell], tuple]


def _system(sweep: SweepSettings) -> Key:
    """Make a function that maps a cell to its system and its surroundings, such as data and graph."""
    names = _compared(sweep)
    return lambda cell: tuple((name, cell.values[name]) for name in names)


def _picked(sweep: SweepSettings) -> Key:
    """Make a function that maps a cell to those of its settings that are picked."""
    apart = {*_compared(sweep), "seed"} | {name for name, field in LISTED.items() if field.role is Role.EVALUATION}
    return lambda cell: tuple((name, value) for name, value in cell.values.items() if name not in apart)


def _compared(sweep: SweepSettings) -> list[str]:
    asked = [name for name in sweep.select_per.split(",") if name]
    for name in asked:
        if name not in LISTED:
            raise suggest("flag in --select_per", name, LISTED)
        if LISTED[name].role in (Role.SEED, Role.EVALUATION):
            raise InputError(f"--select_per={name} is not possible: seeds and evaluations are averaged, not compared")
    evaluation = {name for name, field in LISTED.items() if field.role is Role.EVALUATION}
    own = [name for name, field in LISTED.items() if field.section in _COMPARED and name not in evaluation]
    return list(dict.fromkeys(["algorithm", *own, *asked]))


def _grouped(cells: Iterable[Cell], key: Callable[[Cell], Hashable]) -> dict[Any, list[Cell]]:
    found: dict[Any, list[Cell]] = {}
    for cell in cells:
        found.setdefault(key(cell), []).append(cell)
    return found


def _sound(table: pd.DataFrame | None, cell: Cell, column: str) -> bool:
    if table is None or table["round"].iloc[-1] != cell.settings.rounds:
        return False
    return bool((table["status"] == "done").all() and table[column].notna().all())


def _budgets(tables: Iterable[pd.DataFrame]) -> list[float]:
    """List the numbers 1, 2, 5, 10, … between the smallest and the largest number of bytes that any run sends."""
    sent = pd.concat([table["bytes_sent_total"] for table in tables])
    sent = sent[sent > 0]
    if sent.empty:
        return []
    low, high = math.floor(math.log10(sent.min())), math.ceil(math.log10(sent.max()))
    steps = [digit * 10.0**power for power in range(low, high + 1) for digit in (1, 2, 5)]
    return [step for step in steps if sent.min() <= step < sent.max()]


def _at(tables: Sequence[pd.DataFrame], budget: float, column: str) -> float:
    """Average a column over seeds at the last evaluation within `budget` bytes; NaN if this is round 0 in any run."""
    within = [table[table["bytes_sent_total"] <= budget] for table in tables]
    if any(len(some) < 2 and len(table) > 1 for some, table in zip(within, tables, strict=True)):
        return math.nan
    return sum(some[column].iloc[-1] for some in within) / len(within)


def _named(system: Mapping[str, Any]) -> str:
    """Describe a system in words."""
    others = [f"{name}={value}" for name, value in system.items() if name != "algorithm" and value not in (None, "")]
    return " ".join([str(system["algorithm"]), *others])
