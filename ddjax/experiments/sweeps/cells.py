"""Code that runs one cell of a sweep, on any machine."""

import json
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from ddjax.errors import DivergedError, InputError
from ddjax.experiments import records
from ddjax.experiments.experiment import build
from ddjax.experiments.files import csv_text
from ddjax.experiments.settings import Settings
from ddjax.simulation import Progress, Simulation


class Stopped(Exception):
    """The sweep ends early: it was interrupted, or its folder cannot be written to."""


class Outcome(NamedTuple):
    """Outcome of a cell.

    Attributes:
      result: the result in a few words.
      texts: file name → text to be stored; empty if the cell failed.
      rows: rows of the cell's `metrics.csv`.
      files: path → digest, for each file from which the cell's data or graph is read.
      reason: why the cell failed; empty if it did not fail.
      trace: traceback of an error that is not the user's mistake; otherwise empty.
      trained: seconds of training; `None` if the cell did not run to its end.
    """

    result: str
    texts: Mapping[str, str] = {}
    rows: Sequence[dict[str, Any]] = ()
    files: Mapping[str, str] = {}
    reason: str = ""
    trace: str = ""
    trained: float | None = None


def failed(error: Exception) -> Outcome:
    """Make the outcome of a cell that could not be run because of an error."""
    reason = _reason(error)
    trace = "" if isinstance(error, InputError) else "".join(traceback.format_exception(error))
    return Outcome(f"failed: {reason}", reason=reason, trace=trace)


def run(
    settings: Settings,
    mesh: jax.sharding.Mesh,
    like: Simulation | None,
    progress: Callable[[Progress], None],
    seen: Callable[[Mapping[str, Any]], None] = lambda row: None,
) -> tuple[Outcome, Simulation | None]:
    """Run a cell without storing anything.

    Args:
      settings: settings of the cell.
      mesh: accelerators on which the cell runs.
      like: simulation of another cell with the same program on these accelerators; `None` if there is none.
      progress: called about every half second; it may raise `Stopped`.
      seen: called with each row of the cell's `metrics.csv`.

    Returns:
      The outcome, even if the cell fails, and the compiled simulation (`None` if the cell failed).

    Raises:
      Stopped: `progress` raised this exception.
    """
    rows: list[dict[str, Any]] = []
    compiling, trained = 0.0, None

    def watch(now: Progress) -> None:
        nonlocal compiling
        progress(now)
        compiling = now.seconds_compile

    try:
        built = build(settings, mesh, like)
        records.memory_needed(built.simulation)
        for _, latest in built.iterate(progress=watch):
            rows.append(records.row(settings, latest))
            seen(rows[-1])
        summary = {"status": "done", **records.summary(built, latest, compiling, rows)}
        result, trained = records.brief(latest), latest.seconds_train
    except Stopped:
        raise
    except Exception as error:  # the rest of the sweep goes on
        if not (rows and isinstance(error, DivergedError)):
            return failed(error), None
        summary = {"status": "diverged", "reason": _reason(error)}
        result = f"diverged: {_reason(error)}"
    texts = {"config.json": records.config(built), "summary.json": summary}
    stored = {name: json.dumps(text, indent=2) + "\n" for name, text in texts.items()} | {"metrics.csv": csv_text(rows)}
    stored["devices.csv"] = csv_text(records.device_rows(settings, latest))  # of the last evaluation
    return Outcome(result, stored, rows, built.facts["files"], trained=trained), built.simulation


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
