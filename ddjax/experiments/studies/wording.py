"""Words and numbers in the pages of a study."""

import math
from collections.abc import Sequence
from typing import Any

QUANTITIES = {
    "gradient_norm_sq_mean": "squared gradient norm, mean over devices",
    "gradient_norm_sq_max": "squared gradient norm, largest over devices",
    "gradient_norm_sq_running": "squared gradient norm, averaged over rounds",
    "own_gradient_norm_sq_mean": "squared gradient norm at a device's own target or model",
    "consensus_error": "consensus error",
    "distance_to_solution": "relative distance to the solution",
}


def by_x(dependence: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Group the fitted dependences by the quantity over which they are fitted."""
    return {x: [group for group in dependence if group["x"] == x] for x in dict.fromkeys(g["x"] for g in dependence)}


def interval(fit: dict[str, Any], form: str = ".2f") -> str:
    """Write a fitted value and, if known, its confidence interval."""
    around = f" [{fit['low']:{form}}, {fit['high']:{form}}]" if math.isfinite(fit["low"]) else ""
    return f"{fit['value']:{form}}{around}"


def slope_text(facts: dict[str, Any], name: str) -> str:
    """Write a fitted slope, followed by the slope that theory predicts, if any."""
    known = facts["theory"].get(name)
    scale = known["scale"] if known else "log-log"
    fit, late = facts["slopes"][name][scale], facts["slopes"][name]["log-log, late"]
    if not fit:
        return ""
    if not known and late and abs(late["value"]) < 0.02:
        return "at rest"
    form = ".2e" if scale == "semi-log" else ".2f"
    text = interval(fit, form) + (" per round" if scale == "semi-log" else "")
    if not known:
        return text
    return f"{text} (theory {'at most ' if known['bound'] else ''}{known['value']:{form}})"
