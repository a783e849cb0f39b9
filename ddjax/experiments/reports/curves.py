"""Curves of a report: they are made from the cells of sweeps, labelled, and summarized over seeds."""

import math
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from ddjax.errors import InputError
from ddjax.experiments.fields import fields
from ddjax.experiments.looks import looks
from ddjax.experiments.reports.read import Sweep
from ddjax.experiments.settings import Settings

_PLAIN = ("algorithm", "consensus", "topology", "models")  # flags whose values stand in a label without the flag's name
_EXECUTION = {name for name, field in fields(Settings).items() if field.section == "Execution"}


class Curves(NamedTuple):
    """Curves that are made from cells.

    Attributes:
      x: flag on the x axis; empty for none.
      naming: flags whose values tell curves apart.
      labels: labels of the curves.
      cells: the cells, with two more columns: `curve`, the number of the curve, and `x`, a number (NaN if the cell does
        not use the flag).
      looks: number of each curve's look, that is, its colour and line style (see `looks.looks`).
    """

    x: str
    naming: list[str]
    labels: list[str]
    cells: pd.DataFrame
    looks: list[int]


def _numbers(column: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce")
    return numbers.where(np.isfinite(numbers))


def _settled(cells: pd.DataFrame, name: str, by: list[str]) -> bool:
    """Return whether cells with the same values of the flags `by` also have the same value of the flag `name`."""
    return len(cells.drop_duplicates([*by, name])) == (len(cells.drop_duplicates(by)) if by else 1)


def curves(sweep: Sweep, x: str = "") -> Curves:
    """Find the curves and, unless `x` names it, the flag on the x axis.

    Raises:
      InputError: the flag `x` is not numeric, or has only one value.
    """
    cells = sweep.cells
    varying = [n for n in sweep.names if n not in ("seed", "target_accuracy") and cells[n].nunique() > 1]
    numeric = [
        name
        for name in varying
        if (numbers := _numbers(cells[name])).nunique() > 1 and (numbers.notna() == (cells[name] != "")).all()
    ]
    words = [name for name in varying if name not in numeric]
    if x and x not in numeric:
        raise InputError(
            f"x must be a numeric flag with several values, got {x!r}; accepted: {', '.join(numeric) or 'none'}"
        )
    if not x:
        free = [name for name in numeric if name not in _EXECUTION and not _settled(cells, name, words)]
        x = "devices" if "devices" in numeric else next(iter(free), "")
    cells = cells.assign(x=_numbers(cells[x]) if x else math.nan)
    naming: list[str] = []
    first = [name for name in _PLAIN if name in varying]
    for name in dict.fromkeys((*first, *words, *varying)):
        if name != x and not _settled(cells, name, ["x", *naming]):
            naming.append(name)
    cells["curve"] = cells.groupby(naming, sort=False).ngroup() if naming else 0
    kinds = cells.sort_values("curve", kind="stable").drop_duplicates("curve")
    return Curves(x, naming, _labels(kinds, naming), cells, _looks(kinds, naming))


def _looks(kinds: pd.DataFrame, naming: list[str]) -> list[int]:
    """Choose the looks of the curves by their systems and by the settings that are not at their defaults."""
    known = fields(Settings)
    told = []
    for kind in kinds.to_dict("records"):
        others = [name for name in naming if name != "algorithm" and kind[name] not in ("", str(known[name].default))]
        told.append((kind["algorithm"], ", ".join(f"{name}={kind[name]}" for name in others)))
    return looks(told)


def _labels(kinds: pd.DataFrame, naming: list[str]) -> list[str]:
    """Label each curve by the flags that differ between curves; a flag that a curve does not use is blank."""
    kinds = kinds.replace({"algorithm": {"dsgd": "D-SGD"}})
    for name in naming:
        ends = {value: re.sub(r"[^:+]*/", "", value) for value in kinds[name]}  # without folders
        if len(set(ends.values())) == len(ends):
            kinds[name] = kinds[name].map(ends)
    labels = []
    for _, kind in kinds.iterrows():
        telling = [kind[name] if name in _PLAIN else f"{name}={kind[name]}" for name in naming if kind[name]]
        defaults = [f"{name}=default" for name in naming]
        labels.append(", ".join(telling or defaults or [kind["algorithm"]]))
    return labels


def interval(values: np.ndarray) -> tuple[Any, Any]:
    """Return the mean over seeds and half the width of its 95 % t-interval (NaN for fewer than two seeds).

    Args:
      values: `[seeds, …]` values of the seeds.
    """
    count = len(values)
    if count < 2:
        return (values[0] if count else math.nan), np.full(values.shape[1:], math.nan)[()]
    spread = values.std(axis=0, ddof=1) / math.sqrt(count)
    return values.mean(axis=0), stats.t.ppf(0.975, count - 1) * spread


def summarize(cells: pd.DataFrame, measures: Iterable[str]) -> pd.DataFrame:
    """Return a row per curve and x: how many cells are `done`, `diverged` and `failed`, and each measure.

    For a measure such as `accuracy`, a row also has `± accuracy` (see `interval`), and `least accuracy` and `most
    accuracy`, the extremes over seeds. Bytes to a target (`to …`) are NaN unless all seeds that ran met the target.
    """
    rows = []
    for (curve, x), group in cells.groupby(["curve", "x"], dropna=False):
        counts = {status: int((group["status"] == status).sum()) for status in ("done", "diverged", "failed")}
        row: dict[str, Any] = {"curve": curve, "x": x, **counts}
        for measure in measures:
            chosen = group["status"] != "failed" if measure.startswith("to ") else group["status"] == "done"
            values = group.loc[chosen, measure].to_numpy(float)
            row[measure], row[f"± {measure}"] = interval(values)
            row[f"least {measure}"], row[f"most {measure}"] = _range(values)
        rows.append(row)
    return pd.DataFrame(rows)


def _range(values: np.ndarray) -> tuple[Any, Any]:
    """Return the smallest and the largest of `[seeds, …]` values over seeds; NaN without seeds."""
    return (values.min(0), values.max(0)) if len(values) else (math.nan, math.nan)


def pick_target(cells: pd.DataFrame) -> list[float]:
    """Pick the largest multiple of 0.05 that all seeds of two curves reach at some x.

    Curves that send nothing are left out. If only one curve sends, the target is the largest multiple that this curve
    reaches.
    """
    ran = cells[(cells["status"] != "failed") & ~cells["curve"].isin(silent_curves(cells))]
    least = ran.fillna({"accuracy": 0}).groupby(["curve", "x"], dropna=False)["accuracy"].min()
    best = least.groupby("curve").max().sort_values()
    target = math.floor(20 * best.iloc[-min(2, len(best))] + 1e-9) / 20 if len(best) else 0
    return [target] if target else []


def reach(sweep: Sweep, found: Curves, goals: list[float]) -> Curves:
    """Add columns `to …`: the MB sent per device, including a server's share, when a cell first met each target."""
    met = {goal: sweep.evaluations[sweep.evaluations["accuracy"] >= goal] for goal in goals}
    columns = {f"to {goal:g}": rows.groupby("cell")["megabytes"].first() for goal, rows in met.items()}
    return found._replace(cells=found.cells.assign(**columns))


def over_rounds(sweep: Sweep, cells: pd.DataFrame) -> pd.DataFrame:
    """Return a row per curve and round at which all its seeds were evaluated, with the metric and mean `megabytes`."""
    metric = sweep.metric
    parts = []
    for curve, group in cells[cells["status"] == "done"].groupby("curve"):
        rows = sweep.evaluations[sweep.evaluations["cell"].isin(group.index)]
        seeds = rows.pivot(index="round", columns="cell", values=[metric, "megabytes"]).dropna()
        values = seeds[metric].to_numpy().T
        mean, half = interval(values)
        least, most = _range(values)
        sent = seeds["megabytes"].mean(axis=1).to_numpy()
        columns = {"round": seeds.index, metric: mean, f"± {metric}": half, "megabytes": sent}
        columns |= {f"least {metric}": least, f"most {metric}": most}
        parts.append(pd.DataFrame(columns).assign(curve=curve))
    return pd.concat(parts)


def silent_curves(cells: pd.DataFrame) -> set[int]:
    """Return the numbers of the curves that communicate nothing."""
    sent = cells.groupby("curve")["megabytes"].max()
    return set(sent.index[sent == 0])
