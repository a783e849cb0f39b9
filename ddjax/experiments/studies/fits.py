"""Rates at which the quantities of a study fall, fitted to measurements."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ddjax.errors import InputError
from ddjax.experiments.studies.curves import Curve, alike, reached
from ddjax.theory import rates


def fit(x: np.ndarray, values: np.ndarray, inside: tuple[float, float], scale: str = "log-log") -> dict | None:
    """Fit a slope; return `None` if the values are not positive and finite."""
    try:
        return rates.slope(x, values, inside, scale)._asdict()
    except InputError:
        return None


def above_rounding(curve: Curve, name: str) -> np.ndarray:
    """Return the `[S, T]` values of a quantity, with NaN for values so small that rounding may disturb the fit."""
    values = curve.values[name]
    if "predicted_rate" not in curve.facts:
        return values
    floor = 1e4 * float(np.finfo(curve.cells[0].settings.precision).eps)
    floor = floor if name == "distance_to_solution" else floor**2
    return np.where(values > floor * values.max(-1, keepdims=True), values, np.nan)


def slopes(curve: Curve, inside: tuple[int, int]) -> dict[str, Any]:
    """Fit the rates of all quantities in the rounds `inside` and, for each seed, the slopes of single devices."""
    late = math.sqrt(inside[0] * inside[1]), inside[1]
    found: dict[str, Any] = {}
    for name in curve.values:
        if name != "objective":
            values = above_rounding(curve, name)
            found[name] = {scale: fit(curve.rounds, values, inside, scale) for scale in ("log-log", "semi-log")}
            found[name]["log-log, late"] = fit(curve.rounds, values, late)
    scale = curve.facts["theory"].get("gradient_norm_sq_mean", {}).get("scale", "log-log")
    each = [
        [fit(curve.rounds, device[None], inside, scale) for device in values.T]
        for values in curve.devices["gradient_norm_sq"]
    ]
    return found | {"of_devices": [[device and device["value"] for device in seed] for seed in each]}


def dependence(found: Sequence[Curve]) -> list[dict[str, Any]]:
    """Fit how the quantities at the end depend on the spectral gap of the graph and on the number of devices.

    Log-log slopes are fitted over at least three curves that differ only in the graph, or only in the number of
    devices. Curves that reach the solution are left out.
    """
    names = ("gradient_norm_sq_mean", "consensus_error", "distance_to_solution")
    fits = []
    left = [
        c for c in found if c.facts["spectral_gap"] and not reached(c.cells[0], c.values["distance_to_solution"][:, -1])
    ]
    for flag, x in (("topology", "spectral gap"), ("devices", "devices")):
        for places in alike([curve.cells[0] for curve in left], flag):
            group = [left[place] for place in places]
            if flag == "devices":
                along = np.array([curve.cells[0].settings.devices for curve in group], float)
            else:
                along = np.array([np.mean(curve.facts["spectral_gap"]) for curve in group])
            if len(np.unique(along)) < 3:
                continue
            last = {name: np.array([curve.values[name][:, -1] for curve in group]).T for name in names}
            common = set.intersection(*(set(curve.label.split(", ")) for curve in group))
            fits.append({
                "x": x,
                "at": along.tolist(),
                "values": [curve.cells[0].values[flag] for curve in group],
                "label": ", ".join(part for part in group[0].label.split(", ") if part in common),
                "final": {name: values.tolist() for name, values in last.items()},
                "slopes": {name: fit(along, values, (0, np.inf)) for name, values in last.items()},
            })  # fmt: skip
    return fits
