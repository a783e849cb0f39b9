"""Page of a report: one HTML file."""

import html
import json
import math
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from ddjax.experiments.fields import fields
from ddjax.experiments.looks import AXES
from ddjax.experiments.reports.curves import Curves
from ddjax.experiments.reports.figures import Drawing, Panel, say, swatch
from ddjax.experiments.reports.panels import count, seeds
from ddjax.experiments.reports.read import Sweep
from ddjax.experiments.settings import Settings

_TEMPLATE = Path(__file__).with_name("report.html")
MARK = '<meta name="generator" content="ddjax report.py">'


def _html(head: Sequence[str], rows: Iterable[Sequence[str | tuple[str, float]]], sortable: bool = False) -> str:
    """Return a table; each entry of a row is a text, or a text and the number by which the column is sorted."""
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
        metric: f"mean {AXES[metric][0]}",
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
    """Return a table of the flags that do not tell curves apart, with the values that were used."""
    rows = []
    for name in sweep.names:
        values = [value for value in sweep.cells[name].unique() if value]
        if values and name not in (found.x, "seed", *found.naming):
            default = str(fields(Settings)[name].default)
            rows.append((name, ", ".join(f"{value} (default)" if value == default else value for value in values)))
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
    against = f" over {count(found.cells['x'].nunique(), 'value')} of {found.x}" if found.x else ""
    return f"{count(planned, 'cell')}: {counts}. {count(len(found.labels), 'curve')}{against}, {seeds(table)} each."


def page(
    sweep: Sweep, found: Curves, table: pd.DataFrame, goals: list[float], drawn: list[tuple[Panel, Drawing]], title: str
) -> str:
    """Return the report as one HTML file; the figures to which it links are in the same folder."""
    buttons = [
        f'<button type="button" data-toggles="{curve}" aria-pressed="true">{swatch(look)}'
        f"<span>{html.escape(label)}</span></button>"
        for curve, (label, look) in enumerate(zip(found.labels, found.looks, strict=True))
    ]
    figures = []
    for panel, drawing in drawn:
        links = " · ".join(f'<a href="{panel.name}.{ending}">{ending.upper()}</a>' for ending in drawing.files)
        name = html.escape(f"{panel.labels[1]} against {panel.labels[0] or 'curves'}")
        figures.append(
            f'<figure id="{panel.name}"{"" if panel.lines else " class=wide"}>'
            f'<div class="card" role="img" aria-label="{name}">{drawing.svg}</div>'
            f"<figcaption>{html.escape(panel.caption)} {links}</figcaption></figure>"
        )
    points = json.dumps({panel.name: drawing.points for panel, drawing in drawn}, separators=(",", ":"))
    return string.Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        mark=MARK,
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
