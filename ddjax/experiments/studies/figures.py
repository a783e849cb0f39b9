"""Figures of a study."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ddjax.experiments.looks import COLORS, STYLES, Figure, cm, colormaps, colors, literal, ticker
from ddjax.experiments.studies.curves import Curve
from ddjax.experiments.studies.fits import above_rounding
from ddjax.experiments.studies.wording import QUANTITIES, by_x, interval, slope_text


def figures(curves: Sequence[Curve], summary: dict[str, Any]) -> Iterator[tuple[str, str, Figure]]:
    """Draw the figures of a study; yield, for each, its name, its caption and the figure itself."""
    looks = [
        {"color": COLORS[number % len(COLORS)], "linestyle": STYLES[number // len(COLORS) % len(STYLES)]}
        for number in range(len(curves))
    ]
    for name, label in QUANTITIES.items():
        shown = [_positive(curve.values[name]) for curve in curves]
        if name == "gradient_norm_sq_running" and not any(name in curve.facts["theory"] for curve in curves):
            continue
        if any(np.isfinite(values).all(0).any() for values in shown):
            yield name, label.capitalize(), _over_rounds(curves, summary, looks, shown, name, label)
    several = [curve for curve in curves if (np.ptp(curve.devices["gradient_norm_sq"], axis=-1) > 0).any()]
    if 0 < len(several) <= 12:  # a mean model has the same norm on all devices
        yield "gradient_norm_sq_devices", "Squared gradient norm of each device", _of_devices(several)
    for x, groups in by_x(summary["dependence"]).items():
        yield f"left_vs_{x.replace(' ', '_')}", f"Final values against {x}", _dependence(x, groups)


def _positive(values: Any) -> np.ndarray:
    """Put NaN in place of values that a logarithmic axis cannot show."""
    values = np.asarray(values, float)
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def _over_rounds(
    curves: Sequence[Curve],
    summary: dict[str, Any],
    looks: Sequence[dict[str, Any]],
    shown: Sequence[np.ndarray],
    name: str,
    quantity: str,
) -> Figure:
    """Draw the geometric mean over seeds, a band from the smallest to the largest value, and the fit in its window."""
    fig = Figure(figsize=(7.2, 4.2 + 0.2 * len(curves)), layout="constrained")
    axis = fig.subplots()
    for curve, facts, look, values in zip(curves, summary["curves"], looks, shown, strict=True):
        there = np.isfinite(values).all(0)
        if not there.any():
            continue
        x, values = curve.rounds[there], values[:, there]
        middle = np.exp(np.log(values).mean(0))
        scale = facts["theory"].get(name, {}).get("scale", "log-log")
        fit = facts["slopes"][name][scale]
        label = f"{literal(curve.label)}: slope {slope_text(facts, name) or '?'}".split(" (")[0]
        axis.plot(x, middle, label=label, **look)
        axis.fill_between(x, values.min(0), values.max(0), color=look["color"], alpha=0.15, linewidth=0)
        if fit:
            fitted = np.isfinite(above_rounding(curve, name)[:, there]).all(0)
            inside = (x >= facts["window"][0]) & (x <= facts["window"][1]) & fitted
            line = fit["value"] * (np.log(x[inside]) if scale == "log-log" else x[inside])
            line += np.log(middle[inside]).mean() - line.mean()
            axis.plot(x[inside], np.exp(line), color="black", linestyle=":", linewidth=1)
    axis.set(xscale="log", yscale="log", xlabel="round", ylabel=quantity)
    axis.grid(alpha=0.3)
    fig.legend(loc="outside lower center", ncols=1, fontsize="small")
    return fig


def _of_devices(curves: Sequence[Curve]) -> Figure:
    """Draw a panel per curve, with a line per device and seed, coloured by the device's number of neighbours."""
    columns = min(len(curves), 3)
    rows = math.ceil(len(curves) / columns)
    fig = Figure(figsize=(1.2 + 3.2 * columns, 0.8 + 2.6 * rows), layout="constrained")
    grid = fig.subplots(rows, columns, sharey=True, squeeze=False)
    degrees = [n for curve in curves for seed in curve.facts["neighbors"] for n in seed] or [0]
    norm = colors.Normalize(min(degrees), max(*degrees, min(degrees) + 1))
    for axis, curve in zip(grid.flat, curves, strict=False):
        for s, values in enumerate(curve.devices["gradient_norm_sq"]):
            for n, line in enumerate(_positive(values).T):
                neighbors = curve.facts["neighbors"][s][n] if curve.facts["neighbors"] else 0
                axis.plot(curve.rounds, line, color=colormaps["viridis"](norm(neighbors)), linewidth=0.6, alpha=0.5)
        axis.set(xscale="log", yscale="log", xlabel="round")
        axis.set_title(literal(curve.label).replace(", ", "\n"), fontsize="small")
        axis.grid(alpha=0.3)
    for axis in grid.flat[len(curves) :]:
        axis.remove()
    for axis in grid[:, 0]:
        axis.set_ylabel("squared gradient norm")
    if len(set(degrees)) > 1:
        shades = cm.ScalarMappable(norm, "viridis")
        fig.colorbar(shades, ax=list(grid.flat[: len(curves)]), label="neighbours of the device")
    return fig


def _dependence(x: str, groups: Sequence[dict[str, Any]]) -> Figure:
    """Draw a panel per quantity, with every seed and the fitted lines."""
    names = [name for name in groups[0]["slopes"] if any(group["slopes"][name] for group in groups)]
    fig = Figure(figsize=(1 + 3.6 * len(names), 4), layout="constrained")
    axes = fig.subplots(1, len(names), squeeze=False)
    for axis, name in zip(axes.flat, names, strict=True):
        for number, group in enumerate(groups):
            if not (fit := group["slopes"][name]):
                continue
            color, at, values = COLORS[number % len(COLORS)], np.array(group["at"]), _positive(group["final"][name])
            axis.plot(at, values.T, "o", color=color, markersize=4, alpha=0.6)
            there = np.isfinite(values).all(0)
            line = fit["value"] * np.log(at[there])
            line, order = np.exp(line + np.log(values[:, there]).mean() - line.mean()), np.argsort(at[there])
            label = f"{literal(group['label'])} {interval(fit)}".strip()
            axis.plot(at[there][order], line[order], color=color, linestyle=":", label=label)
        axis.set(xscale="log", yscale="log", xlabel=x)
        axis.set_title(QUANTITIES[name].split(",")[0], fontsize="small")
        axis.legend(fontsize="x-small", title="slopes", title_fontsize="x-small", framealpha=0.5)
        axis.yaxis.set_minor_formatter(ticker.NullFormatter())
        axis.grid(alpha=0.3)
    return fig
