"""Tables of a sweep, made from the folders of its cells."""

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ddjax.errors import InputError
from ddjax.experiments.fields import fields
from ddjax.experiments.settings import Settings

_CLOCK = ["seconds_train", "rounds_per_second"]  # columns that differ when a cell is run again
_TIMES = ["cell", "seconds_compile", "seconds_train", "us_per_device_step"]
_TYPES = {int: "Int64", float: "Float64", str: "string", bool: "boolean"}


def read_tables(
    plan: Mapping[str, dict[str, Any]], folder_of: Callable[[str], Path], failure_of: Callable[[str], Path]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Read results, timings and failures, in the order of the plan.

    Args:
      plan: cell name → settings; another process may have added cells.
      folder_of: maps the name of a cell to its folder.
      failure_of: maps the name of a cell to the file that says why the cell failed.

    Raises:
      InputError: a file is damaged.
    """
    rows: list[pd.DataFrame] = []
    timings: list[dict[str, Any]] = []
    failures: list[dict[str, Any]] = []
    for name, settings in plan.items():
        where = folder = folder_of(name)
        try:
            if folder.is_dir():
                with (where := folder / "metrics.csv").open(newline="") as file:
                    table = [{n: _number(text) for n, text in row.items()} for row in csv.DictReader(file)]
                metrics = pd.DataFrame(table)
                seconds = float(metrics["seconds_train"].iloc[-1])
                summary = json.loads((where := folder / "summary.json").read_text())
                if summary["status"] == "done" and table[-1]["round"] != summary["rounds"]:
                    raise ValueError("lines are missing")
                status = {"cell": name, "status": summary["status"]}
                flags = _typed([status | settings] * len(metrics))
                rows.append(pd.concat([flags, metrics.drop(columns=_CLOCK)], axis=1))
                if summary["status"] == "done":
                    rate, compiling = summary["device_steps_per_second"], summary["seconds_compile"]
                    timings.append(
                        dict(zip(_TIMES, (name, compiling, seconds, 1e6 / rate if rate else None), strict=True))
                    )
                else:
                    failures.append(status | settings | {"reason": summary["reason"]})
            elif (where := failure_of(name)).exists():
                reason = json.loads(where.read_text())["reason"]
                failures.append({"cell": name, "status": "failed"} | settings | {"reason": reason})
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
            if not where.exists():  # another process has finished this failed cell in the meantime
                continue
            place = where if where.parent.name == "failed" else folder
            raise InputError(f"{str(where)!r} is damaged; remove {str(place)!r} to run that cell again") from None
    results = pd.concat(rows, ignore_index=True) if rows else _typed([])
    return results, pd.DataFrame(timings, columns=_TIMES), _typed(failures, "reason")


def _typed(rows: list[dict[str, Any]], *more: str) -> pd.DataFrame:
    """Make a table of cell, status, one column per flag (empty if the flag is not used), and `more` columns."""
    types = {name: _TYPES[field.kind] for name, field in fields(Settings).items() if field.kind in _TYPES}
    frame = pd.DataFrame(rows) if rows else pd.DataFrame(columns=["cell", "status", *types, *more])
    return frame.astype({name: types.get(name, "string") for name in frame.columns})


def _number(text: str) -> float:
    """Parse a number exactly, which pandas does not guarantee; an empty text becomes NaN."""
    return int(text) if text.isdecimal() else float(text or "nan")
