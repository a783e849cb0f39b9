"""Report of sweeps: a page that opens anywhere, and its figures for papers.

    python scripts/report.py SWEEP_DIR... --output=FOLDER

Leaves in --output: report.html, which needs no other file and no network, and each figure as PDF and PNG. A *curve* is
one combination of the settings that vary, seeds and the x axis aside; what is drawn is the mean over its seeds with its
95 % t-interval. A flag that follows from x and the flags before it (as one that is set together with them) names no
curves, and a curve that does not use x is drawn at each of its values. Diverged cells are in no mean.
"""

import html
import json
import math
import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from absl import flags

from ddjax.errors import InputError
from ddjax.experiments import build, options
from ddjax.experiments.plots import AXES
from ddjax.experiments.records import replace
from ddjax.experiments.reports.data import (
    Curves,
    Sweep,
    curves,
    over_rounds,
    pick_target,
    reach,
    read,
    silent_curves,
    summarize,
)
from ddjax.experiments.reports.figures import Drawing, Line, Panel, draw, say, swatch

FLAGS = flags.FlagValues()
_SECTIONS: dict[str, dict[str, tuple]] = {
    "Report": {
        "output": ("", "Folder to write into, new or a former report's; default SWEEP_DIR/report."),
        "target_accuracy": ("", "Mean accuracies, as in 0.6,0.7, to which bytes are counted; default the sweep's."),
        "x": ("", "Numeric flag to draw against; default devices, or else the first with several values."),
    },
}
options.define(_SECTIONS, FLAGS)

_TEMPLATE = Path(__file__).with_suffix(".html")
_MARK = '<meta name="generator" content="ddjax report.py">'


def _measures(metric: str) -> dict[str, tuple[str, str, bool]]:
    """Measure of a cell → axis label, what a caption says, whether its axis is logarithmic."""
    label, scale = AXES[metric]
    return {
        metric: (f"mean {label}", f"Mean {label} over devices, after the last round.", scale == "log"),
        "worst_device": (
            f"worst device's {label.removeprefix('test ')}",
            f"{label[0].upper()}{label[1:]} of the worst device, after the last round.",
            scale == "log",
        ),
        "disagreement": (
            "disagreement",
            "Disagreement after the last round: mean over devices of the squared distance of soft decisions from their "
            "average (zero is not drawn).",
            True,
        ),
        "time": (
            "time (µs per device-step)",
            "Time of training per device and step, without compilation. Cells that ran side by side share the machine.",
            False,
        ),
    }


def _lines(rows: pd.DataFrame, measure: str, logarithmic: str = "") -> list[Line]:
    """The curves of a table with `curve`, `x`, and a measure and its half-width, where they can be drawn."""
    rows = rows[np.isfinite(rows[measure])]
    for axis, column in (("x", "x"), ("y", measure)):
        if axis in logarithmic:
            rows = rows[rows[column] > 0]
    return [
        Line(int(curve), *(some[name].to_numpy(float) for name in ("x", measure, f"± {measure}")))
        for curve, some in rows.groupby("curve")
    ]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"


def _seeds(table: pd.DataFrame) -> str:
    counts = table.loc[table["done"] > 0, "done"]
    least, most = counts.min(), counts.max()
    return (f"{least} to " if least < most else "") + _count(most, "seed")


def panels(sweep: Sweep, found: Curves, table: pd.DataFrame, goals: list[float], picked: bool) -> list[Panel]:
    """Every figure that has something to show; `picked` says that nobody named the goals."""
    several = f" Mean of {_seeds(table)}; {{}}: 95 % t-interval over seeds."
    how = several if table["done"].max() > 1 else " One seed, so no interval."
    silent = silent_curves(found.cells)
    names = ", ".join(found.labels[curve] for curve in silent)
    quiet = f" Left out, as nothing is sent: {names}." if names else ""
    ticks = np.sort(found.cells.loc[found.cells["status"] == "done", "x"].dropna().unique())
    made = _against_x(sweep.metric, found, table, ticks, goals, picked, quiet, how.format("bars"))
    return [panel for panel in made + _over_rounds(sweep, found, ticks, quiet, how.format("bands")) if panel.lines]


def _against_x(
    metric: str,
    found: Curves,
    table: pd.DataFrame,
    ticks: np.ndarray,
    goals: list[float],
    picked: bool,
    quiet: str,
    how: str,
) -> list[Panel]:
    x, free = found.x, table[table["x"].isna()]
    if x:  # what does not use x, at each of its values
        table = pd.concat([table.dropna(subset="x"), *(free.assign(x=tick) for tick in ticks)]).sort_values("x")
    else:
        table = free.assign(x=free["curve"])
    wide = len(ticks) > 0 and 0 < 10 * ticks[0] <= ticks[-1]
    log_x = "x" if x == "devices" or wide else ""
    sending = table[~table["curve"].isin(silent_curves(found.cells))]
    drawn = [(name, name, table, label, text, "y" * log) for name, (label, text, log) in _measures(metric).items()]
    for goal in goals:
        text = (
            f"Sent per device, a server's share counted, at the first evaluation with a mean accuracy of {goal:g}; "
            "drawn where every seed met it."
        )
        if picked:
            text += " None was named: this is the largest multiple of 0.05 that two curves (or the only one) meet so."
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
    cells, x, metric, (label, scale) = found.cells, found.x, sweep.metric, AXES[sweep.metric]
    log_y = "y" * (scale == "log")
    silent = silent_curves(cells)
    rounds, sent = [], []
    for tick in ticks if len(ticks) else [math.nan]:
        rows = over_rounds(sweep, cells[(cells["x"] == tick) | cells["x"].isna()])
        end, at = (f"-{x}={tick:g}", f", at {x} = {tick:,g}") if len(ticks) else ("", "")
        text = f"Mean {label}{at}"
        lines = _lines(rows.assign(x=rows["round"]), metric, log_y)
        rounds.append(Panel(f"{metric}_vs_rounds{end}", ("round", f"mean {label}"), lines, f"{text}.{how}", log_y))
        lines = _lines(rows.assign(x=rows["megabytes"])[~rows["curve"].isin(silent)], metric, "x" + log_y)
        text += f", against what was sent, a server's share counted.{quiet}{how}"
        axes = ("sent (MB per device)", f"mean {label}")
        sent.append(Panel(f"{metric}_vs_bytes{end}", axes, lines, text, "x" + log_y))
    return rounds + sent


def _html(head: Sequence[str], rows: Iterable[Sequence[str | tuple[str, float]]], sortable: bool = False) -> str:
    """A table; a cell is its text, or its text and the number to sort it by."""
    cell = '<button type="button">{}</button>' if sortable else "{}"
    lines = ["".join(f'<th scope="col">{cell.format(html.escape(name))}</th>' for name in head)]
    for row in rows:
        name, *rest = (entry if isinstance(entry, tuple) else (entry, math.nan) for entry in row)
        line = f'<th scope="row">{html.escape(name[0])}</th>'
        for text, value in rest:
            number = "" if math.isnan(value) else f' data-value="{value!r}"'
            line += f"<td{number}>{html.escape(text)}</td>"
        lines.append(line)
    body = "".join(f"<tr>{line}</tr>" for line in lines[1:])
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{lines[0]}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _results(metric: str, found: Curves, table: pd.DataFrame, goals: list[float]) -> str:
    columns = {
        metric: f"mean {AXES[metric][0].removeprefix('test ')}",
        "worst_device": "worst device",
        "disagreement": "disagreement",
        "megabytes": "MB/device",
        **{f"to {goal:g}": f"MB to {goal:g}" for goal in goals},
        "time": "µs/device-step",
    }
    rows = []
    for row in table.to_dict("records"):
        lost = ", ".join(f"{row[status]} {status}" for status in ("diverged", "failed") if row[status])
        rows.append(
            [
                found.labels[row["curve"]],
                *([(f"{row['x']:,g}" if row["x"] == row["x"] else "", row["x"])] if found.x else []),
                (str(row["done"]), row["done"]),
                *((say(row[name], row[f"± {name}"]), row[name]) for name in columns),
                (lost or "none", row["diverged"] + row["failed"]),
            ]
        )
    head = ["curve", *([found.x] if found.x else []), "seeds", *columns.values(), "not done"]
    return _html(head, rows, sortable=True)


def _settings(sweep: Sweep, found: Curves) -> str:
    """A table of the flags that tell no curves apart, with the values that were used."""
    rows = []
    for name in sweep.names:
        values = [value for value in sweep.cells[name].unique() if value]
        if values and name not in (found.x, "seed", *found.naming):
            rows.append((name, ", ".join(values)))
    return _html(("flag", "value"), rows)


def _origins(sweep: Sweep) -> str:
    rows = []
    for about in sweep.about:
        kinds = ", ".join(f"{count} × {kind}" for kind, count in Counter(about["accelerators"]).items())
        versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
        rows += [("command", about["command"]), ("backend", f"{about['backend']}: {kinds}"), ("versions", versions)]
    return _html(("record", "value"), rows)


def _failures(found: Curves) -> str:
    lost = found.cells[found.cells["status"] != "done"]
    if lost.empty:
        return ""
    columns = [*([found.x] if found.x else []), "seed", "status", "reason"]
    rows = [[found.labels[cell["curve"]], *(cell[name] for name in columns)] for cell in lost.to_dict("records")]
    return f"<h2>Diverged and failed cells</h2>{_html(['curve', *columns], rows)}"


def _summary(sweep: Sweep, found: Curves, table: pd.DataFrame) -> str:
    planned = len({name for about in sweep.about for name in about["cells"]})
    counts = ", ".join(f"{table[status].sum()} {status}" for status in ("done", "diverged", "failed"))
    against = f" over {_count(found.cells['x'].nunique(), 'value')} of {found.x}" if found.x else ""
    return f"{_count(planned, 'cell')}: {counts}. {_count(len(found.labels), 'curve')}{against}, {_seeds(table)} each."


def page(
    sweep: Sweep, found: Curves, table: pd.DataFrame, goals: list[float], drawn: list[tuple[Panel, Drawing]], title: str
) -> str:
    """The report as one HTML file; the figures it has links to are beside it."""
    buttons = [
        f'<button type="button" data-toggles="{curve}" aria-pressed="true">{swatch(curve)}<span>{html.escape(label)}'
        "</span></button>"
        for curve, label in enumerate(found.labels)
    ]
    figures = []
    for panel, drawing in drawn:
        links = " · ".join(f'<a href="{panel.name}.{ending}">{ending.upper()}</a>' for ending in drawing.files)
        name = html.escape(f"{panel.labels[1]} against {panel.labels[0] or 'curves'}")
        figures.append(
            f'<figure id="{panel.name}"><div class="card" role="img" aria-label="{name}">{drawing.svg}</div>'
            f"<figcaption>{html.escape(panel.caption)} {links}</figcaption></figure>"
        )
    points = json.dumps({panel.name: drawing.points for panel, drawing in drawn}, separators=(",", ":"))
    return string.Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        mark=_MARK,
        title=html.escape(title),
        summary=html.escape(_summary(sweep, found, table)),
        buttons="".join(buttons),
        figures="\n".join(figures),
        results=_results(sweep.metric, found, table, goals),
        failures=_failures(found),
        settings=_settings(sweep, found),
        origins=_origins(sweep),
        points=points.replace("<", "\\u003c"),
    )


def _former(output: Path) -> set[str]:
    """Names of the files of a former report in the folder.

    Raises:
      InputError: it is no folder, or holds other files.
    """
    if not output.exists():
        return set()
    if not output.is_dir():
        raise InputError(f"output {str(output)!r} is a file")
    there = {path.name for path in output.iterdir() if not path.name.startswith(".")}
    index = output / "report.html"
    text = index.read_text(encoding="utf-8") if index.is_file() else ""
    own = {index.name, *re.findall(r'<a href="([^"/]+)">', text)} if _MARK in text else set()
    if foreign := sorted(there - own):
        raise InputError(f"output {str(output)!r} holds {foreign[0]!r}, which no report made; name a new folder")
    return there


def report(arguments: list[str]) -> None:
    """Reports the sweeps in these folders."""
    if not arguments or (len(arguments) > 1 and not FLAGS.output):
        raise InputError(
            "name the folder of a sweep; of several, --output as well: report.py SWEEP_DIR... --output=FOLDER"
        )
    folders = [Path(argument).expanduser() for argument in arguments]
    output = Path(FLAGS.output).expanduser() if FLAGS.output else folders[0] / "report"
    goals = build.target_accuracies(FLAGS)
    sweep = read(folders)
    found = curves(sweep, FLAGS.x)
    former = _former(output)
    if goals and sweep.metric != "accuracy":
        raise InputError("--target_accuracy is of classes, but these sweeps predict numbers; leave it out")
    goals = goals or sweep.targets
    picked = not goals and sweep.metric == "accuracy"
    if picked:
        goals = pick_target(found.cells)
    found = reach(sweep, found, goals)
    table = summarize(found.cells, [*_measures(sweep.metric), "megabytes", *(f"to {goal:g}" for goal in goals)])
    drawn = [(panel, draw(panel, found.labels)) for panel in panels(sweep, found, table, goals, picked)]
    title = f"Sweep {', '.join(folder.resolve().name for folder in folders)}"
    text = page(sweep, found, table, goals, drawn, title)
    files = {f"{panel.name}.{end}": content for panel, drawing in drawn for end, content in drawing.files.items()}
    output.mkdir(parents=True, exist_ok=True)
    # In this order all that is there is named in the page at any time, so that an interrupted report can be made anew.
    for name in former - {"report.html", *files}:
        (output / name).unlink()
    replace(output / "report.html", text)
    for name, content in files.items():
        replace(output / name, content)
    print(f"written to {output / 'report.html'}")


def main() -> int:
    """Runs the command; the exit code."""
    summary = "Reports sweeps: python scripts/report.py SWEEP_DIR... --name=value …"
    return options.main(report, summary, sections=_SECTIONS, flag_values=FLAGS, arguments="SWEEP_DIR...")
