"""Choice of the figures of a report."""

import math

import numpy as np
import pandas as pd

from ddjax.experiments.looks import AXES
from ddjax.experiments.network_figure import read_devices
from ddjax.experiments.reports.curves import Curves, interval, over_rounds, silent_curves
from ddjax.experiments.reports.figures import Line, Panel
from ddjax.experiments.reports.read import Sweep
from ddjax.learning import TASKS

_SHARES = 41  # number of points of a curve over devices


def measures_of(sweep: Sweep) -> dict[str, tuple[str, str, bool]]:
    """Return, for each measure of a cell, its axis label, its caption, and whether its axis is logarithmic."""
    label, (name, scale) = sweep.measured, AXES[sweep.metric]
    return {
        sweep.metric: (f"mean {label}", f"Mean {label} over devices, after the last round.", scale == "log"),
        "worst_device": (
            f"worst device's {name}",
            f"{label[0].upper()}{label[1:]} of the worst device, after the last round.",
            scale == "log",
        ),
        "disagreement": (
            "disagreement",
            "Disagreement after the last round: the mean over devices of the squared distance of soft decisions from "
            "their average (zero is not drawn).",
            True,
        ),
        "time": (
            "time (µs per device-step)",
            "Training time per device and step, without compilation. Cells that ran side by side shared the machine.",
            False,
        ),
    }


def count(number: int, noun: str) -> str:
    """Write a number of things, as in `2 seeds`."""
    return f"{number} {noun}{'s' if number != 1 else ''}"


def seeds(table: pd.DataFrame) -> str:
    """Write how many seeds the curves have."""
    counts = table.loc[table["done"] > 0, "done"]
    least, most = counts.min(), counts.max()
    return (f"{least} to " if least < most else "") + count(most, "seed")


def _lines(rows: pd.DataFrame, measure: str, logarithmic: str = "") -> list[Line]:
    """Return the lines of a table with columns for `curve`, `x` and a measure, without points that cannot be drawn."""
    rows = rows[np.isfinite(rows[measure])]
    for axis, column in (("x", "x"), ("y", measure)):
        if axis in logarithmic:
            rows = rows[rows[column] > 0]
    return [
        Line(
            int(curve),
            *(
                some[name].to_numpy(float)
                for name in ("x", *(f"{kind}{measure}" for kind in ("", "± ", "least ", "most ")))
            ),
        )
        for curve, some in rows.groupby("curve")
    ]


def panels(sweep: Sweep, found: Curves, table: pd.DataFrame, goals: list[float], picked: bool) -> list[Panel]:
    """Make every figure that has something to show; `picked` says whether the goals were picked, not given."""
    several = f" Mean of {seeds(table)}; {{}}: 95 % t-interval over seeds."
    how = several if table["done"].max() > 1 else " One seed, so no interval."
    silent = silent_curves(found.cells)
    names = ", ".join(found.labels[curve] for curve in silent)
    quiet = f" Left out, because nothing is sent: {names}." if names else ""
    ticks = np.sort(found.cells.loc[found.cells["status"] == "done", "x"].dropna().unique())
    made = _against_x(sweep, found, table, ticks, goals, picked, quiet, how.format("bars"))
    made += _over_rounds(sweep, found, ticks, quiet, how.format("bands"))
    made += _over_devices(sweep, found, ticks, how.format("bands"))
    return [panel for panel in made if panel.lines]


def _against_x(
    sweep: Sweep,
    found: Curves,
    table: pd.DataFrame,
    ticks: np.ndarray,
    goals: list[float],
    picked: bool,
    quiet: str,
    how: str,
) -> list[Panel]:
    x, free = found.x, table[table["x"].isna()]
    if x:  # a curve that does not use x is drawn at each value of x
        table = pd.concat([table.dropna(subset="x"), *(free.assign(x=tick) for tick in ticks)]).sort_values("x")
    else:
        table = free.assign(x=free["curve"])
    wide = len(ticks) > 0 and 0 < 10 * ticks[0] <= ticks[-1]
    log_x = "x" if x == "devices" or wide else ""
    sending = table[~table["curve"].isin(silent_curves(found.cells))]
    drawn = [(name, name, table, label, text, "y" * log) for name, (label, text, log) in measures_of(sweep).items()]
    for goal in goals:
        text = (
            f"Bytes sent by all devices and any server, divided by the number of devices, until the first evaluation "
            f"with a mean accuracy of at least {goal:g}. A point is drawn only where every seed met this target."
        )
        if picked:
            text += " No target was given: this is the largest multiple of 0.05 that two curves (or the only one) met."
        drawn.append(("bytes_to_target", f"to {goal:g}", sending, f"MB per device to {goal:g}", text + quiet, "y"))
    return [
        Panel(
            f"{name}_vs_{x or 'curves'}" + (f"-target={measure[3:]}" if name != measure else ""),
            (x.replace("_", " "), label),
            _lines(rows, measure, log_x + log_y),
            text + how,
            log_x + log_y,
            ticks,
            2 if x == "devices" else 10,
        )
        for name, measure, rows, label, text, log_y in drawn
    ]


def _over_rounds(sweep: Sweep, found: Curves, ticks: np.ndarray, quiet: str, how: str) -> list[Panel]:
    cells, x, metric, label = found.cells, found.x, sweep.metric, sweep.measured
    log_y = "y" * (AXES[metric][1] == "log")
    silent = silent_curves(cells)
    rounds, sent = [], []
    for tick in ticks if len(ticks) else [math.nan]:
        rows = over_rounds(sweep, cells[(cells["x"] == tick) | cells["x"].isna()])
        end, at = (f"-{x}={tick:g}", f", at {x} = {tick:,g}") if len(ticks) else ("", "")
        text = f"Mean {label}{at}"
        lines = _lines(rows.assign(x=rows["round"]), metric, log_y)
        rounds.append(Panel(f"{metric}_vs_rounds{end}", ("round", f"mean {label}"), lines, f"{text}.{how}", log_y))
        lines = _lines(rows.assign(x=rows["megabytes"])[~rows["curve"].isin(silent)], metric, "x" + log_y)
        text += f", against the MB sent per device, including a server's share.{quiet}{how}"
        axes = ("sent (MB per device)", f"mean {label}")
        sent.append(Panel(f"{metric}_vs_bytes{end}", axes, lines, text, "x" + log_y))
    return rounds + sent


def _over_devices(sweep: Sweep, found: Curves, ticks: np.ndarray, how: str) -> list[Panel]:
    """Make the figures of the devices' sorted final scores, if the sweep has stored these scores."""
    cells = found.cells[(found.cells["status"] == "done") & found.cells.index.isin(sweep.folders)]
    x, log_y = found.x, "y" * (AXES[sweep.metric][1] == "log")
    share = np.linspace(0, 1, _SHARES)
    places = share if TASKS[sweep.metric].worst == "min" else 1 - share
    made = []
    for tick in ticks if len(ticks) else [math.nan]:
        lines = []
        for curve, some in cells[(cells["x"] == tick) | cells["x"].isna()].groupby("curve"):
            tables = (read_devices(sweep.folders[cell] / "devices.csv")[1] for cell in some.index)
            values = np.array([np.quantile(table[sweep.metric], places) for table in tables])
            mean, half = interval(values)
            lines.append(Line(int(curve), share, mean, half, values.min(0), values.max(0)))
        end, at = (f"-{x}={tick:g}", f", at {x} = {tick:,g}") if len(ticks) else ("", "")
        text = (
            f"{sweep.measured.capitalize()} of each device after the last round, from the worst to the best{at}.{how}"
        )
        axes = ("share of devices, from the worst", sweep.measured)
        made.append(Panel(f"{sweep.metric}_of_devices{end}", axes, lines, text, log_y))
    return made
