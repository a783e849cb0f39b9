"""Runs one cell of a sweep, wherever that is."""

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
    """The sweep ends early: interrupted, or its folder cannot be written to."""


class Outcome(NamedTuple):
    """How a cell has ended.

    Attributes:
      result: what there is to say of it, in a few words.
      texts: what is to be stored, name → text; nothing where the cell failed.
      rows: of its table.
      files: the digests of the files that its data and its graph were read from, by path.
      reason: why it failed.
      trace: of an error that is no user's mistake.
    """

    result: str
    texts: Mapping[str, str] = {}
    rows: Sequence[dict[str, Any]] = ()
    files: Mapping[str, str] = {}
    reason: str = ""
    trace: str = ""


def failed(error: Exception) -> Outcome:
    """The outcome of a cell that could not be run because of an error."""
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
    """Runs a cell and stores nothing.

    Args:
      settings: of the cell.
      mesh: where it runs.
      like: the simulation of another cell of the same program there.
      progress: called now and then; it may raise `Stopped`.
      seen: called with each row of the table.

    Returns:
      The outcome, also of a cell that fails, and the compiled simulation.

    Raises:
      Stopped: raised by `progress`.
    """
    rows: list[dict[str, Any]] = []
    compiling = 0.0

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
        result = records.brief(latest)
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
    return Outcome(result, stored, rows, built.facts["files"]), built.simulation


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
