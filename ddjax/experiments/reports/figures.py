"""Figures of a report: curves with their intervals, as SVG for a page, and as PDF and PNG for papers."""

import io
import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ddjax.experiments.looks import (
    COLORS,
    STYLES,
    Artist,
    Axes,
    Figure,
    Line2D,
    literal,
    log_ticks,
    looks,
    style,
)

_MARKERS = "osD^vP*X"  # one marker more than colours, so that few curves share both
_DASHES = ("none", "6 3", "7 3 2 3", "7 2 2 2 2 2")  # dash patterns of the line styles, for SVG
_ROOM = 0.5  # how far intervals may stretch an axis beyond the seeds' values, as a share of the values' range
_RC: dict[Any, Any] = {
    "font.size": 8,
    "axes.labelsize": 8.5,
    "legend.fontsize": 8,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "pdf.fonttype": 42,  # TrueType, which publishers require
}


class Line(NamedTuple):
    """Curve in a figure.

    Attributes:
      curve: number of the curve.
      x: `[points]` values on the x axis.
      mean: `[points]` means over seeds.
      half: `[points]` half the width of the interval; NaN for none.
      least: `[points]` smallest values over seeds; `None` if they are not known.
      most: `[points]` largest values over seeds; `None` if they are not known.
    """

    curve: int
    x: np.ndarray
    mean: np.ndarray
    half: np.ndarray
    least: np.ndarray | None = None
    most: np.ndarray | None = None


class Panel(NamedTuple):
    """Figure to be drawn.

    Attributes:
      name: name of the figure's files.
      labels: labels of the x and the y axis, with units.
      lines: the curves, at least one.
      caption: caption on the page.
      logarithmic: the logarithmic axes: `x`, `y` or both.
      ticks: values of x, at which points with bars are drawn; `None` for many values, over which a band is drawn.
      base: base of a logarithmic x axis.
    """

    name: str
    labels: tuple[str, str]
    lines: list[Line]
    caption: str
    logarithmic: str = ""
    ticks: np.ndarray | None = None
    base: int = 10


class Drawing(NamedTuple):
    """Drawn figure.

    Attributes:
      svg: an `<svg>` element without a legend; the parts of curve K are in groups with `data-curve="K"`.
      files: file extension → content, with a legend.
      points: for each point, the curve, x and y in the SVG's units, and a text about the point.
    """

    svg: str
    files: dict[str, bytes]
    points: list[tuple[int, float, float, str]]


def say(mean: float, half: float = math.nan) -> str:
    """Format a mean to three digits, with half the width of its interval if known; a dash for NaN."""
    if math.isnan(mean):
        return "–"
    text = f"{mean:,.0f}" if abs(mean) >= 1000 else f"{mean:#.3g}".rstrip(".")
    if math.isnan(half):
        return text
    half = 0.0 if half < 1e-9 * abs(mean) else half  # rounding
    return f"{text} ± {half:,.0f}" if half >= 10 else f"{text} ± {half:.2g}"


def swatch(look: int) -> str:
    """Return a short line with this look, as an `<svg>` element."""
    color, dashes = COLORS[look % len(COLORS)], _DASHES[look // len(COLORS) % len(_DASHES)]
    path = f'<path d="M0 4h28" stroke="{color}" stroke-width="3" stroke-dasharray="{dashes}"/>'
    return f'<svg viewBox="0 0 28 8" aria-hidden="true">{path}</svg>'


def draw(panel: Panel, names: Sequence[str], chosen: Sequence[int] | None = None) -> Drawing:
    """Draw a figure; the same input gives the same bytes.

    Args:
      panel: what to draw.
      names: names of all curves, by their numbers.
      chosen: looks of all curves (see `looks`); by default, looks follow from the names, which begin with the system.
    """
    chosen = chosen or looks([(system, rest) for system, _, rest in (name.partition(", ") for name in names)])
    entries = [literal(textwrap.fill(names[line.curve], 44)) for line in panel.lines]
    longest = max(len(row) for entry in entries for row in entry.split("\n"))
    columns = max(1, min(len(entries), 58 // (longest + 9)))  # about 58 letters fit; a handle takes nine
    # Estimate the rows of the legend: the highest entry determines the height of a column.
    rows = sum(max(entry.count("\n") + 1 for entry in entries[at::columns]) for at in range(columns)) / columns
    rows = rows * math.ceil(len(entries) / columns)
    with style(_RC | {"svg.hashsalt": panel.name}):
        # With 72 dots per inch, Matplotlib's display coordinates are the SVG's.
        fig = Figure(figsize=(3.4, 2.4), dpi=72, layout="constrained")
        axis = fig.subplots()
        handles = [_draw_line(axis, line, chosen[line.curve], panel.ticks is None) for line in panel.lines]
        _scale(axis, panel)
        axis.set(xlabel=panel.labels[0], ylabel=panel.labels[1])
        axis.grid(alpha=0.3)
        svg = save(fig, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))).decode()
        points = [point for line in panel.lines for point in _points(axis, line, panel.labels, fig.bbox.height)]
        fig.set_size_inches(3.4, 2.4 + 0.17 * rows)
        look = {"frameon": False, "columnspacing": 1.2, "handlelength": 3.2}
        fig.legend(handles, entries, loc="outside lower center", ncols=columns, **look)
        files = {"pdf": save(fig, format="pdf", metadata={"CreationDate": None}), "png": save(fig, dpi=300)}
    return Drawing(svg_element(svg, panel.name), files, points)


def save(fig: Figure, **options: Any) -> bytes:
    """Return the content of a figure's file."""
    buffer = io.BytesIO()
    fig.savefig(buffer, **options)
    return buffer.getvalue()


def _draw_line(axis: Axes, line: Line, look: int, fine: bool) -> Line2D:
    """Draw a curve whose parts share one id in the SVG, and return the line that represents the curve in a legend."""
    color = COLORS[look % len(COLORS)]
    (drawn,) = axis.plot(
        line.x,
        line.mean,
        color=color,
        linestyle=STYLES[look // len(COLORS) % len(STYLES)],
        marker=_MARKERS[look % len(_MARKERS)],
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
    _bound(axis, panel)
    if "y" in panel.logarithmic:
        low, high = axis.get_ylim()
        if high < 1.5 * low:  # for example, for values that differ by rounding
            axis.set_ylim(low / 1.5, high * 1.5)
        log_ticks(axis.yaxis)
    if panel.ticks is not None:
        axis.set_xticks(panel.ticks, _tick_labels(panel.ticks, "x" in panel.logarithmic))
        axis.set_xticks([], minor=True)
        axis.margins(x=0.08)
    elif "x" in panel.logarithmic:
        log_ticks(axis.xaxis)


def _bound(axis: Axes, panel: Panel) -> None:
    """Cut off intervals far beyond the values of the seeds, because wide intervals (as for two seeds) stretch axes.

    An axis of accuracies ends at 1, and no axis reaches below 0.
    """
    least = np.concatenate([line.mean if line.least is None else line.least for line in panel.lines])
    most = np.concatenate([line.mean if line.most is None else line.most for line in panel.lines])
    ends = [line.mean + sign * line.half for line in panel.lines for sign in (-1, 1)]
    reached = np.concatenate([least, most, *ends])
    reached = reached[np.isfinite(reached)].clip(0, 1 if panel.labels[1].endswith("accuracy") else None)
    to, back = (np.log, np.exp) if "y" in panel.logarithmic else (np.asarray, np.asarray)
    least = least[least > 0] if "y" in panel.logarithmic else least
    if not len(least):
        return
    low, high = float(to(least.min())), float(to(most.max()))
    room = _ROOM * (high - low)
    if room == 0:
        return
    floor, ceiling = float(back(low - room)), float(back(high + room))
    cut = reached.min() < floor or reached.max() > ceiling
    low, high = float(to(max(floor, reached.min()))), float(to(min(ceiling, reached.max())))
    margin = 0.05 * (high - low)
    axis.set_ylim(float(back(low - margin)), float(back(high + margin)))
    if cut:
        axis.set_title("intervals that leave the axes are cut", fontsize=6.5, loc="right", color="#555555")


def _tick_labels(ticks: np.ndarray, logarithmic: bool) -> list[str]:
    """Label the ticks that lie far enough apart; the others get no label."""
    labels, last = [], -math.inf
    places = np.log(ticks) if logarithmic else ticks
    for tick, place in zip(ticks, places, strict=True):
        apart = place - last >= 0.12 * np.ptp(places)
        labels.append(f"{tick:,g}" if apart else "")
        last = place if apart else last
    return labels


def _points(axis: Axes, line: Line, labels: tuple[str, str], height: float) -> Iterator[tuple[int, float, float, str]]:
    places = axis.transData.transform(np.column_stack([line.x, line.mean]))
    for (x, y), at, mean, half in zip(places, line.x, line.mean, line.half, strict=True):
        where = f"{labels[0]}: {at:,.6g}\n" if labels[0] else ""
        yield line.curve, round(x, 1), round(height - y, 1), f"{where}{labels[1]}: {say(mean, half)}"


def svg_element(svg: str, name: str) -> str:
    """Turn an SVG file into an element for a page with other figures: without a size, and with unique identifiers."""
    svg = re.sub(r"<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r'\bid="curve-(\d+)"', r'data-curve="\1"', svg)
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", svg)
