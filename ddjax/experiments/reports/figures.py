"""Figures of a report: curves with their intervals, for a page as SVG, for papers as PDF and PNG."""

import io
import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ddjax.experiments.looks import COLORS, STYLES, Artist, Axes, Axis, Figure, Line2D, literal, style, ticker

_MARKERS = "osD^vP*X"  # one more than colours, so that few curves share both
_DASHES = {"-": "none", "--": "6 3", "-.": "7 3 2 3"}
_RC: dict[Any, Any] = {
    "font.size": 8,
    "axes.labelsize": 8.5,
    "legend.fontsize": 8,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "pdf.fonttype": 42,  # TrueType, which publishers ask for
}


class Line(NamedTuple):
    """A curve in a figure.

    Attributes:
      curve: its number, from which its look follows.
      x: `[points]`.
      mean: `[points]` over seeds.
      half: `[points]` half the width of the interval; NaN for none.
    """

    curve: int
    x: np.ndarray
    mean: np.ndarray
    half: np.ndarray


class Panel(NamedTuple):
    """A figure to be drawn.

    Attributes:
      name: of its files.
      labels: of the x and the y axis, with units.
      lines: what is drawn, at least one.
      caption: for the page.
      logarithmic: `x`, `y` or both.
      ticks: the values there are of x, drawn as points with bars; None where they are many, drawn with a band.
      base: of a logarithmic x axis.
    """

    name: str
    labels: tuple[str, str]
    lines: list[Line]
    caption: str
    logarithmic: str = ""
    ticks: np.ndarray | None = None
    base: int = 10


class Drawing(NamedTuple):
    """A drawn figure.

    Attributes:
      svg: an `<svg>` element; what belongs to curve K is in groups with `data-curve="K"`.
      files: ending → content.
      points: (curve, x, y in the SVG's units, what is to be said of it).
    """

    svg: str
    files: dict[str, bytes]
    points: list[tuple[int, float, float, str]]


def say(mean: float, half: float = math.nan) -> str:
    """A number to three digits, with half the width of its interval; a dash for NaN."""
    if math.isnan(mean):
        return "–"
    text = f"{mean:,.0f}" if abs(mean) >= 1000 else f"{mean:#.3g}".rstrip(".")
    if math.isnan(half):
        return text
    half = 0.0 if half < 1e-9 * abs(mean) else half  # rounding
    return f"{text} ± {half:,.0f}" if half >= 10 else f"{text} ± {half:.2g}"


def swatch(curve: int) -> str:
    """A short line that looks as the curve does, as an `<svg>` element."""
    color, style = COLORS[curve % len(COLORS)], STYLES[curve // len(COLORS) % len(STYLES)]
    path = f'<path d="M0 4h28" stroke="{color}" stroke-width="3" stroke-dasharray="{_DASHES[style]}"/>'
    return f'<svg viewBox="0 0 28 8" aria-hidden="true">{path}</svg>'


def draw(panel: Panel, names: Sequence[str]) -> Drawing:
    """Draws a figure; the same input gives the same bytes.

    Args:
      panel: what to draw.
      names: of all curves, by their numbers.
    """
    entries = [literal(textwrap.fill(names[line.curve], 44)) for line in panel.lines]
    longest = max(len(row) for entry in entries for row in entry.split("\n"))
    columns = max(1, min(len(entries), 58 // (longest + 9)))  # about 58 letters fit, a handle takes nine
    rows = math.ceil(sum(entry.count("\n") + 1 for entry in entries) / columns)
    with style(_RC | {"svg.hashsalt": panel.name}):
        # 72 dots an inch: Matplotlib's display coordinates are then the SVG's.
        fig = Figure(figsize=(3.4, 2.4 + 0.17 * rows), dpi=72, layout="constrained")
        axis = fig.subplots()
        handles = [_draw_line(axis, line, panel.ticks is None) for line in panel.lines]
        _scale(axis, panel)
        axis.set(xlabel=panel.labels[0], ylabel=panel.labels[1])
        axis.grid(alpha=0.3)
        look = {"frameon": False, "columnspacing": 1.2, "handlelength": 3.2}
        fig.legend(handles, entries, loc="outside lower center", ncols=columns, **look)
        svg = _save(fig, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))).decode()
        points = [point for line in panel.lines for point in _points(axis, line, panel.labels, fig.bbox.height)]
        files = {"pdf": _save(fig, format="pdf", metadata={"CreationDate": None}), "png": _save(fig, dpi=300)}
    return Drawing(_inline(svg, panel.name), files, points)


def _save(fig: Figure, **options: Any) -> bytes:
    buffer = io.BytesIO()
    fig.savefig(buffer, **options)
    return buffer.getvalue()


def _draw_line(axis: Axes, line: Line, fine: bool) -> Line2D:
    """What stands for the line in a legend; everything drawn has the curve's group."""
    color = COLORS[line.curve % len(COLORS)]
    (drawn,) = axis.plot(
        line.x,
        line.mean,
        color=color,
        linestyle=STYLES[line.curve // len(COLORS) % len(STYLES)],
        marker=_MARKERS[line.curve % len(_MARKERS)],
        markevery=max(1, len(line.x) // 6) if fine else 1,
    )
    artists: list[Artist] = [drawn]
    if np.isfinite(line.half).any():
        if fine:
            band = axis.fill_between(
                line.x, line.mean - line.half, line.mean + line.half, color=color, alpha=0.15, linewidth=0
            )
            artists.append(band)
        else:
            bars = axis.errorbar(line.x, line.mean, line.half, fmt="none", ecolor=color, elinewidth=1, capsize=2)
            artists += bars.get_children()
    for artist in artists:
        artist.set_gid(f"curve-{line.curve}")
    return drawn


def _scale(axis: Axes, panel: Panel) -> None:
    if "x" in panel.logarithmic:
        axis.set_xscale("log", base=panel.base)
    if "y" in panel.logarithmic:
        axis.set_yscale("log")
        low, high = axis.get_ylim()
        if high < 1.5 * low:  # as of values that differ by rounding
            axis.set_ylim(low / 1.5, high * 1.5)
        _log_ticks(axis.yaxis)
    if panel.ticks is not None:
        axis.set_xticks(panel.ticks, _tick_labels(panel.ticks, "x" in panel.logarithmic))
        axis.set_xticks([], minor=True)
        axis.margins(x=0.08)
    elif "x" in panel.logarithmic:
        _log_ticks(axis.xaxis)


def _tick_labels(ticks: np.ndarray, logarithmic: bool) -> list[str]:
    """Labels for the ticks that lie far enough apart; the others get none."""
    labels, last = [], -math.inf
    places = np.log(ticks) if logarithmic else ticks
    for tick, place in zip(ticks, places, strict=True):
        apart = place - last >= 0.12 * np.ptp(places)
        labels.append(f"{tick:,g}" if apart else "")
        last = place if apart else last
    return labels


def _log_ticks(axis: Axis) -> None:
    """Few and short, on any range."""
    low, high = axis.get_view_interval()
    narrow = ticker.MaxNLocator(4) if high < 4 * low else ticker.LogLocator(subs=(1, 2, 5))
    axis.set_major_locator(narrow if high < 100 * low else ticker.LogLocator())
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(ticker.NullFormatter())


def _points(axis: Axes, line: Line, labels: tuple[str, str], height: float) -> Iterator[tuple[int, float, float, str]]:
    places = axis.transData.transform(np.column_stack([line.x, line.mean]))
    for (x, y), at, mean, half in zip(places, line.x, line.mean, line.half, strict=True):
        where = f"{labels[0]}: {at:,.6g}\n" if labels[0] else ""
        yield line.curve, round(x, 1), round(height - y, 1), f"{where}{labels[1]}: {say(mean, half)}"


def _inline(svg: str, name: str) -> str:
    """An SVG file as an element of a page that has others: without a size, with names of its own."""
    svg = re.sub(r"<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r'\bid="curve-(\d+)"', r'data-curve="\1"', svg)
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", svg)
