"""What a study of convergence leaves: its tables, its summary for machines and for readers, its figures."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from ddjax.experiments import records
from ddjax.experiments.plots import COLORS, STYLES, plt
from ddjax.experiments.studies.data import Curve, above_rounding

_QUANTITIES = {
    "gradient_norm_sq_mean": "squared gradient norm, mean over devices",
    "gradient_norm_sq_max": "squared gradient norm, largest of a device",
    "gradient_norm_sq_running": "squared gradient norm, averaged over rounds",
    "own_gradient_norm_sq_mean": "squared gradient norm at a device's own target or model",
    "consensus_error": "consensus error",
    "distance_to_solution": "relative distance to the solution",
}
_FALLING = -0.1  # a log-log slope that counts as falling
_ABOUT_RATES = """\
Slopes are of logarithms over rounds {start:,} to {end:,} of the first curve (`summary.json` has all windows): against
the logarithm of the round or, marked `a round`, against the round. Means over seeds, from three on with 95 % bootstrap
intervals, which of few seeds are too narrow. Theory holds once transients are over; *at most* bounds the quantity from
above, so that steeper slopes agree with it. Gradients are those of a device's loss at the average soft decision z̄; of
averaging those of the mean loss at the mean model (in the other column, of a device's own loss at its own model); of
devices alone those of their own loss. The solution is that of each algorithm. The spectral gap of a network that
changes is an average over rounds. Numbers are means over seeds; curves in the figures are geometric means, with bands
from the least to the largest."""
_ABOUT_END_POINTS = """\
A *minimum* has no direction that bends down by more than a thousandth of the largest curvature (beyond the
uncertainty: an eigenvalue lies so near), its gradient cannot lower the loss by more than a thousandth of it, against
curvature of that size, nor does a perturbation along the direction of smallest curvature. A *saddle* has a direction
that bends down so, and leaving along it gains more. All else is *undecided*, mostly because the gradient is still too
large."""


def tables(folder: Path, curves: Sequence[Curve], summary: dict[str, Any]) -> None:
    """Writes what is known so far into a folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, of_devices = [], []
    for curve in curves:
        for s, cell in enumerate(curve.cells):
            for t, number in enumerate(curve.rounds):
                place = {"curve": curve.label, "seed": cell.given.seed, "round": int(number)}
                rows.append(place | {name: float(values[s, t]) for name, values in curve.values.items()})
                each = {name: values[s, t].tolist() for name, values in curve.devices.items()}
                of_devices += [
                    place | {"device": n} | dict(zip(each, row, strict=True))
                    for n, row in enumerate(zip(*each.values(), strict=True))
                ]
    records.replace(folder / "convergence.csv", records.table(rows))
    records.replace(folder / "devices.csv", records.table(of_devices))
    records.replace(folder / "summary.json", json.dumps(_plain(summary), indent=2, allow_nan=False) + "\n")
    records.replace(folder / "summary.md", _page(summary, {}))


def page(folder: Path, curves: Sequence[Curve], summary: dict[str, Any]) -> None:
    """Draws the figures, and writes the page that shows them."""
    drawn = {}
    for name, caption, figure in _figures(curves, summary):
        for ending in ("png", "pdf"):
            figure.savefig(folder / f"{name}.{ending}", dpi=120)
        plt.close(figure)
        drawn[name] = caption
    records.replace(folder / "summary.md", _page(summary, drawn))


def _plain(value: Any) -> Any:
    """For JSON, which has no NaN."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# Figures.


def _figures(curves: Sequence[Curve], summary: dict[str, Any]) -> Iterator[tuple[str, str, Figure]]:
    """Names, captions and figures of what there is to draw."""
    looks = [
        {"color": COLORS[number % len(COLORS)], "linestyle": STYLES[number // len(COLORS) % len(STYLES)]}
        for number in range(len(curves))
    ]
    for name, label in _QUANTITIES.items():
        shown = [_positive(curve.values[name]) for curve in curves]
        if name == "gradient_norm_sq_running" and not any(name in curve.facts["theory"] for curve in curves):
            continue
        if any(np.isfinite(values).all(0).any() for values in shown):
            yield name, label.capitalize(), _over_rounds(curves, summary, looks, shown, name, label)
    several = [curve for curve in curves if np.ptp(curve.devices["gradient_norm_sq"], axis=-1).any()]
    if 0 < len(several) <= 12:  # a mean model is one
        yield "gradient_norm_sq_devices", "Squared gradient norm of each device", _of_devices(several)
    for x, groups in _by_x(summary["dependence"]).items():
        yield f"left_vs_{x.replace(' ', '_')}", f"What is left at the end against {x}", _dependence(x, groups)


def _by_x(dependence: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return {x: [group for group in dependence if group["x"] == x] for x in dict.fromkeys(g["x"] for g in dependence)}


def _positive(values: Any) -> np.ndarray:
    """For a logarithmic axis."""
    values = np.asarray(values, float)
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def _over_rounds(
    curves: Sequence[Curve],
    summary: dict[str, Any],
    looks: Sequence[dict[str, Any]],
    shown: Sequence[np.ndarray],
    name: str,
    label: str,
) -> Figure:
    """Geometric mean over seeds, from least to largest as a band, with the fitted line in its window."""
    fig, axis = plt.subplots(figsize=(7.2, 4.2 + 0.2 * len(curves)), layout="constrained")
    for curve, facts, look, values in zip(curves, summary["curves"], looks, shown, strict=True):
        there = np.isfinite(values).all(0)
        if not there.any():
            continue
        x, values = curve.rounds[there], values[:, there]
        middle = np.exp(np.log(values).mean(0))
        scale = facts["theory"].get(name, {}).get("scale", "log-log")
        fit = facts["slopes"][name][scale]
        axis.plot(x, middle, label=f"{curve.label}: slope {_slope(facts, name) or '?'}".split(" (")[0], **look)
        axis.fill_between(x, values.min(0), values.max(0), color=look["color"], alpha=0.15, linewidth=0)
        if fit:
            fitted = np.isfinite(above_rounding(curve, name)[:, there]).all(0)
            inside = (x >= facts["window"][0]) & (x <= facts["window"][1]) & fitted
            line = fit["value"] * (np.log(x[inside]) if scale == "log-log" else x[inside])
            line += np.log(middle[inside]).mean() - line.mean()
            axis.plot(x[inside], np.exp(line), color="black", linestyle=":", linewidth=1)
    axis.set(xscale="log", yscale="log", xlabel="round", ylabel=label)
    axis.grid(alpha=0.3)
    fig.legend(loc="outside lower center", ncols=1, fontsize="small")
    return fig


def _of_devices(curves: Sequence[Curve]) -> Figure:
    """A panel a curve, a line a device of each seed, coloured by its number of neighbours."""
    columns = min(len(curves), 3)
    rows = math.ceil(len(curves) / columns)
    fig, grid = plt.subplots(
        rows, columns, figsize=(1.2 + 3.2 * columns, 0.8 + 2.6 * rows), sharey=True, squeeze=False, layout="constrained"
    )
    degrees = [n for curve in curves for seed in curve.facts["neighbors"] for n in seed] or [0]
    norm = plt.Normalize(min(degrees), max(*degrees, min(degrees) + 1))
    for axis, curve in zip(grid.flat, curves, strict=False):
        for s, values in enumerate(curve.devices["gradient_norm_sq"]):
            for n, line in enumerate(_positive(values).T):
                neighbors = curve.facts["neighbors"][s][n] if curve.facts["neighbors"] else 0
                axis.plot(curve.rounds, line, color=plt.cm.viridis(norm(neighbors)), linewidth=0.6, alpha=0.5)
        axis.set(xscale="log", yscale="log", xlabel="round")
        axis.set_title(curve.label.replace(", ", "\n"), fontsize="small")
        axis.grid(alpha=0.3)
    for axis in grid.flat[len(curves) :]:
        axis.remove()
    for axis in grid[:, 0]:
        axis.set_ylabel("squared gradient norm")
    if len(set(degrees)) > 1:
        shades = plt.cm.ScalarMappable(norm, "viridis")
        fig.colorbar(shades, ax=list(grid.flat[: len(curves)]), label="neighbours of the device")
    return fig


def _dependence(x: str, groups: Sequence[dict[str, Any]]) -> Figure:
    """A panel a quantity: every seed, and the fitted lines."""
    names = [name for name in groups[0]["slopes"] if any(group["slopes"][name] for group in groups)]
    fig, axes = plt.subplots(1, len(names), figsize=(1 + 3.6 * len(names), 4), squeeze=False, layout="constrained")
    for axis, name in zip(axes.flat, names, strict=True):
        for number, group in enumerate(groups):
            if not (fit := group["slopes"][name]):
                continue
            color, at, values = COLORS[number % len(COLORS)], np.array(group["at"]), _positive(group["final"][name])
            axis.plot(at, values.T, "o", color=color, markersize=4, alpha=0.6)
            there = np.isfinite(values).all(0)
            line = fit["value"] * np.log(at[there])
            line, order = np.exp(line + np.log(values[:, there]).mean() - line.mean()), np.argsort(at[there])
            label = f"{group['label']} {_interval(fit)}".strip()
            axis.plot(at[there][order], line[order], color=color, linestyle=":", label=label)
        axis.set(xscale="log", yscale="log", xlabel=x)
        axis.set_title(_QUANTITIES[name].split(",")[0], fontsize="small")
        axis.legend(fontsize="x-small", title="slopes", title_fontsize="x-small", framealpha=0.5)
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.grid(alpha=0.3)
    return fig


# The page.


def _interval(fit: dict[str, Any], form: str = ".2f") -> str:
    interval = f" [{fit['low']:{form}}, {fit['high']:{form}}]" if math.isfinite(fit["low"]) else ""
    return f"{fit['value']:{form}}{interval}"


def _slope(facts: dict[str, Any], name: str) -> str:
    """A fitted slope beside what theory says of it."""
    known = facts["theory"].get(name)
    scale = known["scale"] if known else "log-log"
    fit, late = facts["slopes"][name][scale], facts["slopes"][name]["log-log, late"]
    if not fit:
        return ""
    if not known and late and abs(late["value"]) < 0.02:
        return "at rest"
    form = ".2e" if scale == "semi-log" else ".2f"
    text = _interval(fit, form) + (" a round" if scale == "semi-log" else "")
    if not known:
        return text
    return f"{text} (theory {'at most ' if known['bound'] else ''}{known['value']:{form}})"


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _range(slopes: Sequence[float]) -> str:
    """From the first to the last, where they differ."""
    return " to ".join(
        dict.fromkeys(
            f"{value:.2f}" if abs(value) > 0.1 else f"{value:.2e}" for value in slopes[:: max(len(slopes) - 1, 1)]
        )
    )


def _number(value: float | None, form: str = ".2e") -> str:
    return f"{value:{form}}" if value is not None and math.isfinite(value) else ""


def _verdict(curve: dict[str, Any]) -> str:
    """Of where a run goes to, in words."""
    if not np.isfinite(curve["final"]["objective"]).all():
        return "diverged"
    distance, what = _mean(curve["final"]["distance_to_solution"]), "distance" if curve["solved"] else "gradients"
    if curve["reached"]:
        return f"reaches the solution (to {curve['flags']['precision']})"
    if "predicted_distance" in curve and math.isclose(distance, _mean(curve["predicted_distance"]), rel_tol=0.01):
        return "rests at the distance predicted"
    fits = curve["slopes"]["distance_to_solution" if curve["solved"] else "gradient_norm_sq_max"]
    shown = [fit for fit in (fits["log-log"], fits["log-log, late"]) if fit]
    falls = [(fit["high"] if math.isfinite(fit["high"]) else fit["value"]) < _FALLING for fit in shown]
    return f"{what} still falling" if falls and all(falls) else f"{what} not falling, no longer or not yet"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Without the columns that are empty in all rows."""
    kept = [place for place, _ in enumerate(head) if any(row[place] for row in rows)]
    return [f"| {' | '.join(line[place] for place in kept)} |" for line in (head, ["---"] * len(head), *rows)] + [""]


def _page(summary: dict[str, Any], drawn: dict[str, str]) -> str:
    curves = summary["curves"]
    lines = ["# Convergence study", "", f"`{summary['command']}`", "", "## Where it ends", ""]
    head = ["curve", "seeds", "rounds", "step size", "verdict", "squared gradient norm, mean / largest device"]
    head += ["at their own targets", "consensus error", "relative distance to the solution", "predicted distance"]
    rows = []
    for curve in curves:
        final = {name: _mean(values) for name, values in curve["final"].items()}
        step = f"{curve['flags']['learning_rate']:.3g}"
        rows.append([
            curve["label"],
            str(len(curve["seeds"])),
            f"{curve['flags']['rounds']:,}",
            step + (" (derived)" if "learning_rate" in curve["derived"] else ""),
            _verdict(curve),
            " / ".join(dict.fromkeys(f"{final[f'gradient_norm_sq_{name}']:.2e}" for name in ("mean", "max"))),
            _number(final["own_gradient_norm_sq_mean"]),
            _number(final["consensus_error"]),
            _number(final["distance_to_solution"]),
            f"{round(_mean(curve['predicted_distance']), 12):.3g}" if "predicted_distance" in curve else "",
        ])  # fmt: skip
    lines += _table(head, rows)
    lines += ["## Rates", ""]
    head = ["curve", "squared gradient norm", "of the devices, least to most steep", "averaged over rounds"]
    head += ["consensus error", "distance to the solution", "spectral gap", "decay of pure mixing, measured / theory"]
    rows = []
    for curve in curves:
        steep = sorted((value for seed in curve["slopes"]["of_devices"] for value in seed if value), reverse=True)
        gaps, decay = curve["spectral_gap"], curve["mixing_decay"]
        mixing = f"{decay:.4f} / {1 - gaps[0]:.4f}" if gaps and decay is not None else ""
        rows.append([
            curve["label"],
            _slope(curve, "gradient_norm_sq_mean"),
            _range(steep),
            _slope(curve, "gradient_norm_sq_running") if "gradient_norm_sq_running" in curve["theory"] else "",
            _slope(curve, "consensus_error"),
            _slope(curve, "distance_to_solution"),
            _number(_mean(gaps), ".4f") if gaps else "",
            mixing,
        ])  # fmt: skip
    lines += _table(head, rows)
    start, end = curves[0]["window"]
    lines += [_ABOUT_RATES.format(start=start, end=end), ""]
    if any(curve["endpoints"] for curve in curves):
        lines += ["## What kind of point it is", ""]
        head = ["curve", "verdicts", "smallest curvature (± uncertainty), lowest of all", "largest curvature"]
        head += [
            "lowest ratio of a device's two",
            "largest gradient norm",
            "mean loss",
            "loss lower along it by at most",
        ]
        rows = [_ends(curve) for curve in curves if curve["endpoints"]]
        lines += _table(head, rows)
        lines += [_ABOUT_END_POINTS, ""]
    for x, groups in _by_x(summary["dependence"]).items():
        lines += [f"## Dependence on {x}", ""]
        shown = dict.fromkeys(str(value) for group in groups for value in group["values"])
        names = list(groups[0]["slopes"])
        rows = [
            [group["label"], *(_interval(fit) if (fit := group["slopes"][name]) else "" for name in names)]
            for group in groups
        ]
        lines += [f"Log-log slopes of what is left at the end, over {', '.join(shown)}.", ""]
        lines += _table(["curves", *(_QUANTITIES[name].split(",")[0] for name in names)], rows)
    lines += [part for name, caption in drawn.items() for part in (f"![{caption}]({name}.png)", "")]
    return "\n".join(lines)


def _ends(curve: dict[str, Any]) -> list[str]:
    points = curve["endpoints"]
    verdicts = [point["verdict"] for point in points]
    lowest = min(points, key=lambda point: point["smallest"])
    return [
        curve["label"],
        ", ".join(f"{verdicts.count(kind)} {kind}" for kind in dict.fromkeys(verdicts)),
        f"{lowest['smallest']:.2e} (± {lowest['uncertainty']:.0e})",
        _number(max(point["largest"] for point in points)),
        f"{min(point['smallest'] / point['largest'] for point in points):.4f}",
        _number(max(point["gradient_norm"] for point in points)),
        _number(_mean([point["loss"] for point in points])),
        _number(max(point["escape"] for point in points)),
    ]
