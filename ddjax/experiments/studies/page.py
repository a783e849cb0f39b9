"""Files of a study: tables, and a summary for machines and for readers."""

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddjax.experiments.files import csv_text, replace
from ddjax.experiments.studies.curves import Curve
from ddjax.experiments.studies.wording import QUANTITIES, by_x, interval, slope_text

_SHOWN = ("gradient_norm_sq_mean", "consensus_error", "distance_to_solution")  # in the console
_FALLING = -0.1  # a log-log slope that counts as falling
_ABOUT_RATES = """\
Slopes are fitted to the logarithm of a quantity, against the logarithm of the round or, if marked `per round`, against
the round itself. The slopes of the first curve are fitted over rounds {start:,} to {end:,}; `summary.json` has the
windows of all curves. Numbers are means over seeds. With three or more seeds, slopes have 95 % bootstrap intervals,
which are too narrow if there are few seeds.

The slopes of theory hold once transients are over. *At most* marks an upper bound; steeper slopes agree with it.

For distillation, the table shows the gradient of each device's loss with the average soft decision z̄ as its target.
For algorithms that average parameters, it shows the gradient of the mean loss at the mean model; the column `at their
own targets` then shows the gradient of each device's own loss at its own model. For devices that train alone, it shows
the gradient of each device's own loss. Distances are to the solution of the curve's own algorithm. If a network
changes, its spectral gap is an average over rounds.

Curves in the figures are geometric means over seeds; each band extends from the smallest to the largest value."""
_ABOUT_END_POINTS = """\
Let κ be a thousandth of the largest curvature. If the curvature along the gradient `g` were κ, the best step along `g`
would lower the loss by `‖g‖²/2κ`. A point is *undecided* if this is a thousandth of the loss or more. Most undecided
points are of this kind. Otherwise, a point is a *saddle* if the smallest curvature lies below −κ by more than its
uncertainty, and a step along the direction of smallest curvature lowers the loss by more than a thousandth. A point is
a *minimum* if the smallest curvature lies above −κ by more than its uncertainty, and no step along this direction
lowers the loss that much. All other points are undecided. The Hessian has an eigenvalue that differs from the smallest
curvature shown by at most the uncertainty."""


def tables(folder: Path, curves: Sequence[Curve], summary: dict[str, Any]) -> None:
    """Write the tables of all curves so far into a folder, which is made if it does not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, of_devices = [], []
    for curve in curves:
        for s, cell in enumerate(curve.cells):
            for t, number in enumerate(curve.rounds):
                place = {"curve": curve.label, "seed": cell.settings.seed, "round": int(number)}
                rows.append(place | {name: float(values[s, t]) for name, values in curve.values.items()})
                each = {name: values[s, t].tolist() for name, values in curve.devices.items()}
                of_devices += [
                    place | {"device": n} | dict(zip(each, row, strict=True))
                    for n, row in enumerate(zip(*each.values(), strict=True))
                ]
    replace(folder / "convergence.csv", csv_text(rows))
    replace(folder / "devices.csv", csv_text(of_devices))
    replace(folder / "summary.json", json.dumps(_plain(summary), indent=2, allow_nan=False) + "\n")
    replace(folder / "summary.md", _page(summary, {}))


def page(folder: Path, curves: Sequence[Curve], summary: dict[str, Any]) -> None:
    """Draw the figures, and write the page that shows them."""
    from ddjax.experiments.looks import style  # slow to import
    from ddjax.experiments.studies.figures import figures

    drawn = {}
    with style():
        for name, caption, figure in figures(curves, summary):
            for ending in ("png", "pdf"):
                content = io.BytesIO()
                figure.savefig(content, format=ending, dpi=120)
                replace(folder / f"{name}.{ending}", content.getvalue())
            drawn[name] = caption
    replace(folder / "summary.md", _page(summary, drawn))


def in_short(curve: dict[str, Any]) -> str:
    """Describe the end of a curve and its slopes in a few lines, for the console."""
    lines = [f"{curve['label']}: {_verdict(curve)}, after {curve['flags']['rounds']:,} rounds"]
    for name in _SHOWN:
        if final := _number(_mean(curve["final"][name])):
            predicted = name == "distance_to_solution" and "predicted_distance" in curve and not curve["reached"]
            known = f" (predicted {_mean(curve['predicted_distance']):.2e})" if predicted else ""
            slope = slope_text(curve, name)
            end = slope if slope in ("", "at rest") else f"slope {slope}"
            lines.append(f"  {_brief(name):<34}{', '.join(filter(None, [final + known, end]))}")
    return "\n".join(lines)


def _plain(value: Any) -> Any:
    """Replace NaN and infinities by `None` for JSON, which has neither."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _range(slopes: Sequence[float]) -> str:
    """Write the first and the last slope, or only one of them if both have the same text."""
    return " to ".join(
        dict.fromkeys(
            f"{value:.2f}" if abs(value) > 0.1 else f"{value:.2e}" for value in slopes[:: max(len(slopes) - 1, 1)]
        )
    )


def _brief(name: str) -> str:
    """Name a quantity without how it is averaged."""
    return QUANTITIES[name].split(",")[0]


def _number(value: float | None, form: str = ".2e") -> str:
    return f"{value:{form}}" if value is not None and math.isfinite(value) else ""


def _verdict(curve: dict[str, Any]) -> str:
    """Say in words where a run ends."""
    if not np.isfinite(curve["final"]["objective"]).all():
        return "diverged"
    distance, what = _mean(curve["final"]["distance_to_solution"]), "distance" if curve["solved"] else "gradients"
    if curve["reached"]:
        return f"reaches the solution (to {curve['flags']['precision']})"
    if "predicted_distance" in curve and math.isclose(distance, _mean(curve["predicted_distance"]), rel_tol=0.01):
        return "rests at the predicted distance"
    fits = curve["slopes"]["distance_to_solution" if curve["solved"] else "gradient_norm_sq_max"]
    shown = [fit for fit in (fits["log-log"], fits["log-log, late"]) if fit]
    falls = [(fit["high"] if math.isfinite(fit["high"]) else fit["value"]) < _FALLING for fit in shown]
    return f"{what} still falling" if falls and all(falls) else f"{what} not falling (no longer, or not yet)"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Write a table without the columns that are empty in all rows."""
    kept = [place for place, _ in enumerate(head) if any(row[place] for row in rows)]
    return [f"| {' | '.join(line[place] for place in kept)} |" for line in (head, ["---"] * len(head), *rows)] + [""]


def _page(summary: dict[str, Any], drawn: dict[str, str]) -> str:
    curves = summary["curves"]
    lines = ["# Convergence study", "", f"`{summary['command']}`", "", *_where(curves), *_rates(curves)]
    if any(curve["endpoints"] for curve in curves):
        lines += ["## What kind of point it is", ""]
        head = ["curve", "verdicts", "smallest curvature of all points (± uncertainty)", "largest curvature"]
        head += ["lowest ratio of smallest to largest curvature at a point", "largest gradient norm", "mean loss"]
        head += ["largest decrease of the loss along the direction of smallest curvature"]
        lines += _table(head, [_ends(curve) for curve in curves if curve["endpoints"]])
        lines += [_ABOUT_END_POINTS, ""]
    for x, groups in by_x(summary["dependence"]).items():
        lines += _dependence(x, groups)
    lines += [part for name, caption in drawn.items() for part in (f"![{caption}]({name}.png)", "")]
    return "\n".join(lines)


def _where(curves: Sequence[dict[str, Any]]) -> list[str]:
    """Write the section on where each curve ends."""
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
    return ["## Where it ends", "", *_table(head, rows)]


def _rates(curves: Sequence[dict[str, Any]]) -> list[str]:
    """Write the section on how quickly each curve falls."""
    head = ["curve", "squared gradient norm", "slopes of single devices, least to most steep", "averaged over rounds"]
    head += ["consensus error", "distance to the solution", "spectral gap", "decay of pure mixing, measured / theory"]
    rows = []
    for curve in curves:
        steep = sorted((value for seed in curve["slopes"]["of_devices"] for value in seed if value), reverse=True)
        gaps, decay = curve["spectral_gap"], curve["mixing_decay"]
        mixing = f"{decay:.4f} / {1 - gaps[0]:.4f}" if gaps and decay is not None else ""
        rows.append([
            curve["label"],
            slope_text(curve, "gradient_norm_sq_mean"),
            _range(steep),
            slope_text(curve, "gradient_norm_sq_running") if "gradient_norm_sq_running" in curve["theory"] else "",
            slope_text(curve, "consensus_error"),
            slope_text(curve, "distance_to_solution"),
            _number(_mean(gaps), ".4f") if gaps else "",
            mixing,
        ])  # fmt: skip
    start, end = curves[0]["window"]
    return ["## Rates", "", *_table(head, rows), _ABOUT_RATES.format(start=start, end=end), ""]


def _dependence(x: str, groups: Sequence[dict[str, Any]]) -> list[str]:
    """Write the section on how the quantities at the end depend on `x`."""
    shown = dict.fromkeys(str(value) for group in groups for value in group["values"])
    names = list(groups[0]["slopes"])
    rows = [
        [group["label"], *(interval(fit) if (fit := group["slopes"][name]) else "" for name in names)]
        for group in groups
    ]
    return [
        f"## Dependence on {x}",
        "",
        f"Log-log slopes of the quantities at the end, over {', '.join(shown)}.",
        "",
        *_table(["curves", *map(_brief, names)], rows),
    ]


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
