"""Picture of a network: its devices, coloured by their scores, and the links that carried messages."""

import io
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from ddjax.errors import InputError
from ddjax.experiments.layouts import places
from ddjax.experiments.looks import (
    AXES,
    Axes,
    Figure,
    Line2D,
    LineCollection,
    cm,
    colors,
    literal,
    measured,
    style,
)
from ddjax.experiments.records import shown
from ddjax.experiments.units import size
from ddjax.learning import TASKS

MARKERS = "os^Dp*hv8P"
SIZES = {"s": 0.85, "^": 1.2, "v": 1.2, "D": 0.7, "*": 1.7}  # relative areas, with which marks look equally large
DRAWN_DEVICES, DRAWN_LINKS = 400, 6000  # above 400, devices become squares in rows; above 6000, no link is drawn
_INK, _WORST = "#555555", "#D55E00"


class Links(NamedTuple):
    """Links of a network that carried messages.

    Attributes:
      ends: `[E, 2]` senders and receivers; the server has the number `N`.
      bytes: `[E]` bytes over each link, or ones if the bytes are unknown.
    """

    ends: np.ndarray
    bytes: np.ndarray


class Run(NamedTuple):
    """Scores of the devices of a run over time, and the links between the devices.

    Attributes:
      flags: settings of the run.
      metric: `accuracy` or `mse`.
      rounds: rounds of the evaluations to draw, at most four.
      scores: `[evaluations, N]` scores of the devices.
      models: `[N]` names of the devices' models.
      links: links that carried messages; empty if the network is too large to draw its links.
      ended: whether the run is complete, so that its links are known.
    """

    flags: dict[str, Any]
    metric: str
    rounds: list[int]
    scores: np.ndarray
    models: np.ndarray
    links: Links
    ended: bool


def shown_rounds(rounds: Sequence[int]) -> list[int]:
    """Pick the first round, the last round, and two rounds between them, spaced by about equal ratios."""
    rounds = sorted(rounds)
    later = np.array(rounds[1:])
    if len(later) < 3:
        return rounds
    wanted = later[0] * (later[-1] / later[0]) ** np.array([1 / 3, 2 / 3])
    second = int(np.abs(np.log(later[:-2] / wanted[0])).argmin())
    third = second + 1 + int(np.abs(np.log(later[second + 1 : -1] / wanted[1])).argmin())
    return [rounds[0], int(later[second]), int(later[third]), rounds[-1]]


def read_devices(path: Path) -> tuple[str, pd.DataFrame]:
    """Read a `devices.csv`, and return its metric and its table.

    Raises:
      InputError: the file is missing or damaged.
    """
    try:
        table = pd.read_csv(path, dtype={"round": int, "device": int, "model": str})
        metric = next(name for name in TASKS if name in table)
        if table.empty or not np.isfinite(table[[metric, "round", "device"]]).all(axis=None):
            raise ValueError
    except FileNotFoundError:
        raise InputError(f"{str(path)!r} is missing; earlier versions of ddjax did not write this file") from None
    except (OSError, ValueError, KeyError, StopIteration):
        raise InputError(f"{str(path)!r} is damaged: it has no rows of round, device, model and score") from None
    return metric, table


def read_run(folder: Path, flags: dict[str, Any]) -> Run:
    """Read the parts of a run that `plot_network` draws.

    Args:
      folder: output folder of `train.py`.
      flags: settings of the run.

    Raises:
      InputError: a table is missing or damaged.
    """
    metric, table = read_devices(folder / "devices.csv")
    scores = table.pivot(index="round", columns="device", values=metric).dropna()  # complete evaluations only
    rounds = shown_rounds(scores.index.tolist())
    models = table.drop_duplicates("device").sort_values("device")["model"].to_numpy()
    links = Links(np.empty((0, 2), int), np.empty(0))
    path = folder / "links.csv"
    if len(models) <= DRAWN_DEVICES and path.exists():
        try:
            found = pd.read_csv(path, dtype={"sender": str, "receiver": str, "bytes": float})
            found = found.replace({"sender": {"server": len(models)}, "receiver": {"server": len(models)}})
            found = found.groupby(["sender", "receiver"], as_index=False)["bytes"].sum()
            links = Links(found[["sender", "receiver"]].to_numpy().astype(int), found["bytes"].to_numpy())
        except (OSError, ValueError, KeyError):
            raise InputError(f"{str(path)!r} is damaged") from None
    ended = (folder / "summary.json").exists()
    return Run(flags, metric, rounds, scores.loc[rounds].to_numpy(), models, links, ended)


def network_figure(run: Run, name: str) -> Figure:
    """Draw the devices and their links, in one panel per evaluation.

    Args:
      run: run to draw.
      name: name of the system, for the title.
    """
    devices, task = len(run.models), TASKS[run.metric]
    norm, colormap = shades(run.scores, run.metric)
    large = devices > DRAWN_DEVICES
    marks, circled, server = markers(run.models), False, has_server(run.links, devices)
    side = 3.1 if devices <= 100 else 5.0
    columns = len(run.rounds) if devices <= 100 else min(2, len(run.rounds))
    rows = math.ceil(len(run.rounds) / columns)
    with style({"font.size": 9}):
        fig = Figure(figsize=(side * columns + 1.0, (side + 0.4) * rows + 0.9), layout="constrained")
        grid = fig.subplots(rows, columns, squeeze=False).ravel()
        at = None if large else places(devices, run.links.ends, run.flags.get("topology", ""), server)
        for axis, round, scores in zip(grid, run.rounds, run.scores, strict=False):
            mean, worst = scores.mean(), getattr(scores, task.worst)()
            axis.set_title(f"round {round:,}\nmean {shown(run.metric, mean)}, worst {shown(run.metric, worst)}")
            if at is None:
                draw_squares(axis, scores, run.models, norm, colormap)
            else:
                draw_links(axis, at, run.links, run.flags.get("topology", ""))
                circled |= draw_devices(axis, at, scores, run.models, marks, norm, colormap, task.worst, side)
        for axis in grid[len(run.rounds) :]:
            axis.remove()
        kind = measured(run.metric, [run.flags.get("evaluate_on", "test")])
        bar: dict[str, Any] = {
            "label": f"{kind} (brighter is better)",
            "aspect": 20 * rows,
            "fraction": 0.06,
            "pad": 0.02,
        }
        fig.colorbar(cm.ScalarMappable(norm, colormap), ax=list(grid[: len(run.rounds)]), **bar)
        fig.suptitle(f"{literal(name)}: {count(devices, 'device')}\n{_note(run)}", fontweight="bold")
        entries = legend(marks, server, circled) if at is not None else []
        if entries:
            fig.legend(handles=entries, loc="outside lower center", ncols=6, frameon=False)
    return fig


def picture(run: Run, name: str, ending: str) -> bytes:
    """Return the figure as the bytes of a file with this extension."""
    content = io.BytesIO()
    with style():
        network_figure(run, name).savefig(content, format=ending, dpi=120)
    return content.getvalue()


def has_server(links: Links, devices: int) -> bool:
    """Return whether any link begins or ends at the server, which has the number `devices`."""
    return bool((links.ends == devices).any())


def shades(scores: np.ndarray, metric: str) -> tuple[colors.Normalize, str]:
    """Return a colour scale for all scores, and the name of a colour map that shows better scores brighter."""
    low, high = float(scores.min()), float(scores.max())
    if AXES[metric][1] == "log" and low > 0:
        return colors.LogNorm(low, max(high, 1.01 * low)), "viridis_r"
    worse_is_more = TASKS[metric].worst == "max"
    return colors.Normalize(low, max(high, low + 1e-3)), "viridis_r" if worse_is_more else "viridis"


def markers(models: Iterable[str]) -> dict[str, str]:
    """Return a marker for each model."""
    return dict(zip(dict.fromkeys(models), itertools.cycle(MARKERS), strict=False))


def draw_devices(
    axis: Axes,
    at: np.ndarray,
    scores: np.ndarray,
    models: np.ndarray,
    marks: Mapping[str, str],
    norm: colors.Normalize,
    colormap: str,
    worst: str,
    side: float,
) -> bool:
    """Draw a mark per device, and the server if there are `N + 1` positions.

    Args:
      axis: axes in which to draw.
      at: `[N or N + 1, 2]` positions of the devices and, last, of the server.
      scores: `[N]` scores of the devices.
      models: `[N]` names of the devices' models.
      marks: marker of each model.
      norm: scale of the colours.
      colormap: name of the colour map.
      worst: `min` if the lowest score is the worst, otherwise `max`.
      side: side of the panel in inches.

    Returns:
      Whether a circle marks the worst device; there is no circle if all scores are equal.
    """
    devices = len(scores)
    apart = np.quantile(KDTree(at).query(at, 2)[0][:, 1], 0.3) if len(at) > 1 else 2.0
    width = float(np.clip(0.7 * apart * side * 72 / 2.3, 5, 16))  # width of a mark, in points
    edge: dict[str, Any] = {"edgecolors": _INK, "linewidths": 0.6 if width > 5 else 0.2}
    for model in dict.fromkeys(models.tolist()):
        own, marker = models == model, marks[model]
        look: dict[str, Any] = {"c": scores[own], "norm": norm, "cmap": colormap, "marker": marker, "zorder": 3}
        x, y = at[:devices][own].T
        axis.scatter(x, y, s=width**2 * SIZES.get(marker, 1.0), **look, **edge)
    if len(at) > devices:
        axis.scatter(at[devices:, 0], at[devices:, 1], s=14**2, c="black", marker="s", zorder=4)
    circled = bool(np.ptp(scores) > 0)
    if circled:
        x, y = at[int(getattr(scores, f"arg{worst}")())]
        axis.scatter(
            x, y, s=(width + 7) ** 2, facecolors="none", edgecolors=_WORST, linewidths=1.6, zorder=5, clip_on=False
        )
    axis.set(xlim=(-1.15, 1.15), ylim=(-1.15, 1.15), aspect="equal")
    axis.axis("off")
    return circled


def draw_links(axis: Axes, at: np.ndarray, links: Links, topology: str = "") -> None:
    """Draw the links, wider where more bytes were sent; if there are few links, one-way links get arrows."""
    pairs, bytes, both = merged(links)
    if not 0 < len(pairs) <= DRAWN_LINKS:
        return
    share, crowd = bytes / bytes.max(), min(1.0, math.sqrt(100 / len(pairs)))
    width = (0.4 + 1.8 * share) * max(crowd, 0.3)
    shade = [(0.35, 0.35, 0.35, alpha) for alpha in (0.25 + 0.5 * share) * crowd]
    start, end = at[pairs[:, 0]], at[pairs[:, 1]]
    if topology == "torus":
        start, end, width, shade = _around(start, end, width, shade)
    axis.add_collection(LineCollection(list(np.stack([start, end], 1)), linewidths=width, colors=shade, zorder=1))
    if len(pairs) <= 200 and topology != "torus":
        for one, other in zip(start[~both], end[~both], strict=True):
            arrow = {"arrowstyle": "-|>", "color": _INK, "lw": 0.5, "mutation_scale": 10, "shrinkA": 0, "shrinkB": 0}
            axis.annotate("", one + 0.6 * (other - one), one + 0.4 * (other - one), arrowprops=arrow, zorder=2)


def merged(links: Links) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Join the two directions of each link.

    Returns:
      `[E, 2]` pairs of ends, `[E]` bytes in both directions together, and `[E]` whether messages went both ways.
    """
    if not len(links.ends):
        return links.ends, links.bytes, np.empty(0, bool)
    ordered = np.sort(links.ends, 1)
    _, first, which, counts = np.unique(ordered, axis=0, return_index=True, return_inverse=True, return_counts=True)
    return links.ends[first], np.bincount(which.ravel(), links.bytes), counts > 1


def _around(start: np.ndarray, end: np.ndarray, width: np.ndarray, shade: list) -> tuple:
    """Replace each link that wraps around a torus with two short lines that leave the grid."""
    step = end - start
    size = np.abs(step).max(1)
    long = size > 1.5 * np.abs(step)[step != 0].min()
    out = -step[long] / size[long, None] * 0.5 * np.abs(step)[step != 0].min()
    starts = np.concatenate([start[~long], start[long], end[long]])
    ends = np.concatenate([end[~long], start[long] + out, end[long] - out])
    order = np.concatenate([np.flatnonzero(~long), np.flatnonzero(long), np.flatnonzero(long)])
    return starts, ends, width[order], [shade[number] for number in order]


def draw_squares(axis: Axes, scores: np.ndarray, models: np.ndarray, norm: colors.Normalize, colormap: str) -> None:
    """Draw a square per device, in rows; each model begins a new row."""
    columns = math.ceil(math.sqrt(len(scores)))
    blocks, marks, row = [], {}, 0
    for model in dict.fromkeys(models.tolist()):
        own = scores[models == model]
        rows = math.ceil(len(own) / columns)
        block = np.full(rows * columns, np.nan)
        block[: len(own)] = own
        blocks += [block.reshape(rows, columns), np.full((1, columns), np.nan)]
        marks[row + (rows - 1) / 2] = model
        row += rows + 1
    axis.imshow(np.concatenate(blocks[:-1]), norm=norm, cmap=colormap, interpolation="nearest", aspect="equal")
    axis.set_xticks([])
    if len(marks) > 1:
        axis.set_yticks(list(marks), [literal(model) for model in marks.values()], rotation=90, va="center")
    else:
        axis.set_yticks([])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


def legend(marks: Mapping[str, str], server: bool, circled: bool) -> list[Line2D]:
    """Return the entries of the legend: models if there are several, the server, and the circle of the worst device."""
    look: dict[str, Any] = {"linestyle": "none", "markersize": 8}
    entries = [
        Line2D([], [], marker=marker, color="#bbbbbb", markeredgecolor=_INK, label=literal(model), **look)
        for model, marker in marks.items()
        if len(marks) > 1
    ]
    if server:
        entries.append(Line2D([], [], marker="s", color="black", label="server", **look))
    if circled:
        circle: dict[str, Any] = {"color": "none", "markeredgecolor": _WORST, "markeredgewidth": 1.6}
        entries.append(Line2D([], [], marker="o", label="worst device", **circle, **look))
    return entries


def _note(run: Run) -> str:
    """Describe which links are drawn."""
    pairs, bytes, _ = merged(run.links)
    if len(run.models) > DRAWN_DEVICES:
        return f"one square per device, row by row; links are drawn for up to {DRAWN_DEVICES} devices"
    if not run.ended:
        return "without links: they are known only at the end of a run"
    if not len(pairs):
        return "no link carried a message"
    if len(pairs) > DRAWN_LINKS:
        return f"{len(pairs):,} links carried messages; more than {DRAWN_LINKS:,} are too many to draw"
    if np.ptp(bytes) < 0.01 * bytes.max():
        return f"{count(len(pairs), 'link')}, {size(bytes.mean())} over each"
    return f"{count(len(pairs), 'link')}, wider where more bytes went: {size(bytes.min())} to {size(bytes.max())}"


def count(number: int, noun: str) -> str:
    """Format a number with its noun, as in `1,000 links`."""
    return f"{number:,} {noun}{'s' if number != 1 else ''}"
