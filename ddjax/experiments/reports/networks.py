"""Figure of a report with the network of each curve, in which devices are coloured by their final scores."""

import json
import math
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from ddjax.errors import InputError
from ddjax.experiments.layouts import places
from ddjax.experiments.looks import Figure, cm, literal, style
from ddjax.experiments.network_figure import (
    DRAWN_DEVICES,
    Links,
    draw_devices,
    draw_links,
    draw_squares,
    has_server,
    legend,
    markers,
    read_devices,
    shades,
)
from ddjax.experiments.records import shown
from ddjax.experiments.reports.curves import Curves
from ddjax.experiments.reports.figures import Drawing, Panel, save, svg_element
from ddjax.experiments.reports.read import Sweep
from ddjax.learning import TASKS
from ddjax.networks import build_topology

_CURVES, _SIDE = 24, 1.75  # largest number of panels, and the side of a panel in inches


def networks(sweep: Sweep, found: Curves) -> tuple[Panel, Drawing] | None:
    """Draw the network of each curve at the largest x, for the curve's smallest seed.

    Args:
      sweep: measurements of the sweep.
      found: curves of the sweep.

    Returns:
      The figure; `None` if no scores of devices are stored, or if there are too many curves.

    Raises:
      InputError: a table of scores is damaged.
    """
    cells = found.cells[found.cells["status"] == "done"]
    cells = cells[cells.index.isin(sweep.folders)]
    cells = cells[cells["x"].isna() | (cells["x"] == cells["x"].max())]
    cells = cells.assign(number=cells["seed"].astype(float)).sort_values(["curve", "number"]).drop_duplicates("curve")
    if not 0 < len(cells) <= _CURVES:
        return None
    tables = [read_devices(sweep.folders[cell] / "devices.csv")[1] for cell in cells.index]
    scores = [table[sweep.metric].to_numpy() for table in tables]
    models = [table["model"].to_numpy() for table in tables]
    norm, colormap = shades(np.concatenate(scores), sweep.metric)
    worst = TASKS[sweep.metric].worst
    marks = markers(model for own in models if len(own) <= DRAWN_DEVICES for model in own)
    rows = math.ceil(len(cells) / 4)
    columns = math.ceil(len(cells) / rows)
    name = f"network_of_{sweep.metric}"
    with style({"font.size": 7, "pdf.fonttype": 42, "svg.hashsalt": name}):
        fig = Figure(figsize=(_SIDE * columns + 0.8, (_SIDE + 0.45) * rows + 0.3), dpi=72, layout="constrained")
        grid = fig.subplots(rows, columns, squeeze=False).ravel()
        served = circled = False
        for axis, (cell, told), own, kinds in zip(grid, cells.iterrows(), scores, models, strict=False):
            links = _links(sweep.folders[str(cell)], told.to_dict(), len(own))
            server = has_server(links, len(own))
            served |= server
            text = textwrap.fill(found.labels[told["curve"]], 30)
            mean, least = shown(sweep.metric, own.mean()), shown(sweep.metric, getattr(own, worst)())
            axis.set_title(f"{literal(text)}\nmean {mean}, worst {least}", fontsize=7)
            axis.set_gid(f"curve-{told['curve']}")
            if len(own) > DRAWN_DEVICES:
                draw_squares(axis, own, kinds, norm, colormap)
            else:
                at = places(len(own), links.ends, told.get("topology") or "", server)
                draw_links(axis, at, links, told.get("topology") or "")
                circled |= draw_devices(axis, at, own, kinds, marks, norm, colormap, worst, _SIDE)
        for axis in grid[len(cells) :]:
            axis.remove()
        bar: dict[str, Any] = {"label": f"{sweep.measured} of a device", "aspect": 14 * rows, "pad": 0.02}
        fig.colorbar(cm.ScalarMappable(norm, colormap), ax=list(grid[: len(cells)]), fraction=0.05, **bar)
        if entries := legend(marks, served, circled):
            fig.legend(handles=entries, loc="outside lower center", ncols=6, frameon=False)
        svg = save(fig, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))).decode()
        files = {"pdf": save(fig, format="pdf", metadata={"CreationDate": None}), "png": save(fig, dpi=200)}
    where = f" at {found.x} = {cells['x'].max():,g}" if found.x and cells["x"].notna().any() else ""
    caption = (
        f"Devices after the last round{where}, for the smallest seed of each curve: brighter is better. Lines are the "
        "links of the graph, or lead to the server; a run of train.py writes the bytes over each link to links.csv."
    )
    panel = Panel(name, ("the network", "devices"), [], caption)
    return panel, Drawing(svg_element(svg, name), files, [])


def _links(folder: Path, flags: dict[str, Any], devices: int) -> Links:
    """Find the links over which the devices of a cell sent messages: those of the graph, those to a server, or none."""
    try:
        ways = json.loads((folder / "summary.json").read_text()).get("message_bytes", {})
    except (OSError, ValueError, AttributeError):
        raise InputError(f"{str(folder / 'summary.json')!r} cannot be read") from None
    none = np.empty((0, 2), int)
    if {"up", "down"} & set(ways):
        number = np.arange(devices)
        ends = np.stack([number, np.full(devices, devices)], 1)
        ends = np.concatenate([ends, ends[:, ::-1]])
    elif "peer" in ways and devices <= DRAWN_DEVICES:
        try:
            matrices = build_topology(flags["topology"], devices, seed=int(flags["seed"]), stochastic="links").matrices
            union = sum(abs(matrix) for matrix in matrices).tocoo()
            linked = union.row != union.col
            ends = np.stack([union.col[linked], union.row[linked]], 1)
        except (InputError, KeyError, ValueError):  # for example, an edge file is gone
            ends = none
    else:
        ends = none
    return Links(ends, np.ones(len(ends)))
