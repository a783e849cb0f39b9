"""Measurements of sweeps, read from their folders."""

import contextlib
import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ddjax.errors import InputError
from ddjax.experiments import looks
from ddjax.learning import TASKS
from ddjax.simulation.watch import FACTOR


class Sweep(NamedTuple):
    """Measurements of sweeps.

    Attributes:
      metric: metric by which devices were tested: `accuracy` or `mse`.
      about: `sweep.json` of each sweep.
      names: names of the flags.
      cells: a row per cell that ran, by the name of the cell: `status` (done, diverged or failed), `reason`, and every
        flag as text. The row of a done cell also has final values: the metric (a mean over devices), the score of the
        `worst_device`, `disagreement`, `time`, and `megabytes` sent per device (including a server's share).
      evaluations: a row per evaluation of a done cell: `cell`, `round`, and the values of `cells` except `time`.
      targets: mean accuracies of `--target_accuracy`.
      folders: cell name → folder, for each cell that stored the scores of its devices.
    """

    metric: str
    about: list[dict]
    names: list[str]
    cells: pd.DataFrame
    evaluations: pd.DataFrame
    targets: list[float]
    folders: dict[str, Path]

    @property
    def measured(self) -> str:
        """Metric with the kinds of examples on which it was measured, as in `test accuracy`."""
        kinds = self.cells.get("evaluate_on", [])
        return looks.measured(self.metric, [kind for kind in kinds if kind] or ["test"])


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[Path]:
    try:
        yield path
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{str(path)!r} is missing; name a folder that sweep.py wrote") from None
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(f"{str(path)!r} cannot be read: {error}") from None


def _table(path: Path, *needed: str) -> pd.DataFrame:
    with path.open(newline="", encoding="utf-8-sig") as file:
        head, *rows = csv.reader(file, strict=True)
    if len(head) == 1 and ";" in head[0]:
        raise ValueError(
            "a spreadsheet program saved it with semicolons; to restore it, repeat the command of the sweep"
        )
    if missing := set(needed) - set(head):
        raise ValueError(f"it has no column {min(missing)!r}")
    if any(len(row) != len(head) for row in rows):  # pandas would fill the row up
        raise ValueError("a row is cut short")
    return pd.DataFrame(rows, columns=head, dtype=str)


def _read(folder: Path) -> Sweep:
    with _reading(folder / "sweep.json") as path:
        sweep = json.loads(path.read_text(encoding="utf-8"))
        kinds = {"command": str, "cells": list, "versions": dict, "backend": str, "accelerators": list}
        about = {name: kind(sweep[name]) for name, kind in kinds.items()}
    with _reading(folder / "results.csv") as path:
        table = _table(path, "cell", "status")
        if table.empty:
            raise InputError(f"{str(path)!r} has no row: no cell has finished yet")
        columns = list(table.columns)
        names = columns[columns.index("status") + 1 : columns.index("round")]
        table = table[table["status"] == "done"]
        metric = _common(metric for metric in TASKS if f"{metric}_mean" in columns)
        sources = {f"{metric}_mean": metric, f"{metric}_{TASKS[metric].worst}": "worst_device"}
        evaluations = table[["round", *sources, "disagreement"]].rename(columns=sources).astype(float)
        evaluations["megabytes"] = table["bytes_sent_total"].astype(float) / table["devices"].astype(float) / 1e6
        if not np.isfinite(evaluations).all(axis=None):
            raise ValueError("a row of a done cell lacks a number")
        evaluations = evaluations.assign(cell=table["cell"]).sort_values("round")
        cells = table.drop_duplicates("cell").set_index("cell")[["status", *names]].assign(reason="")
        targets = pd.to_numeric(cells["target_accuracy"].str.split(",").explode()).dropna()
    with _reading(folder / "timings.csv") as path:
        times = _table(path, "cell", "us_per_device_step").set_index("cell")["us_per_device_step"]
        time = pd.to_numeric(times).reindex(cells.index)
    with _reading(folder / "failures.csv") as path:
        others = _table(path, "cell", "status", "reason").set_index("cell")[["status", "reason", *names]]
    if metric == "accuracy" and not evaluations[metric].between(0, 1).all():
        raise InputError(f"{str(folder / 'results.csv')!r} has an accuracy outside 0 to 1")
    measures = evaluations.groupby("cell").last().drop(columns="round").assign(time=time)
    cells = cells.join(measures)
    if metric == "mse":  # earlier versions stored diverged cells as done
        rose = measures[metric] > FACTOR * evaluations.groupby("cell")[metric].first()
        lost = rose.index[rose]
        cells.loc[lost, "status"] = "diverged"
        cells.loc[lost, "reason"] = "its mse is far above its first value"
        cells.loc[lost, list(measures)] = np.nan
        evaluations = evaluations[~evaluations["cell"].isin(lost)]
    kept = {path.parent.name: path.parent for path in folder.glob("cells/[!.]*/devices.csv")}
    return Sweep(metric, [about], names, pd.concat([cells, others]), evaluations, list(targets), kept)


def _common(metrics: Iterable[str]) -> str:
    """Return the metric that all sweeps have; raise `InputError` if there are several metrics."""
    first, *others = dict.fromkeys(metrics)
    if others:
        raise InputError(
            "sweeps that measure accuracy and sweeps that measure mse cannot share a report; write one for each"
        )
    return first


def read(folders: Sequence[Path]) -> Sweep:
    """Read several sweeps as one; a cell that is in several sweeps counts once.

    Raises:
      InputError: a file is missing or damaged, no cell is done, or cells have different metrics.
    """
    sweeps = [_read(folder) for folder in folders]
    about = [sweep.about[0] for sweep in sweeps]
    names = list(dict.fromkeys(name for sweep in sweeps for name in sweep.names))
    cells = pd.concat([sweep.cells for sweep in sweeps])
    cells[names] = cells[names].fillna("")
    place = {name: number for number, name in enumerate(name for sweep in about for name in sweep["cells"])}
    cells = cells.assign(place=cells.index.map(place), lost=cells["status"] != "done")
    cells = cells.sort_values(["place", "lost"])  # in the order of the plan, a done cell before a lost one
    cells = cells[~cells.index.duplicated()]
    if not (cells["status"] == "done").any():
        raise InputError(f"no cell is done; {str(folders[0] / 'failures.csv')!r} has the reasons")
    evaluations = pd.concat([sweep.evaluations for sweep in sweeps]).drop_duplicates(["cell", "round"])
    targets = sorted({target for sweep in sweeps for target in sweep.targets})
    kept = {name: path for sweep in reversed(sweeps) for name, path in sweep.folders.items()}
    return Sweep(_common(sweep.metric for sweep in sweeps), about, names, cells, evaluations, targets, kept)
