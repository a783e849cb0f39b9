"""What a study of convergence leaves: its table, its summary for machines and for readers, its figures."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import records
from matplotlib.figure import Figure
from plots import COLORS, STYLES, plt

if TYPE_CHECKING:
    from convergence import Curve

_FIGURES = {
    "gradient_norm_sq_mean": r"squared gradient norm at $\bar z$, mean over devices",
    "gradient_norm_sq_max": r"squared gradient norm at $\bar z$, largest",
    "own_gradient_norm_sq_mean": "squared gradient norm at a device's own target",
    "consensus_error": "consensus error",
    "distance_to_solution": "relative distance to the solution",
}


def write(folder: Path, curves: Sequence["Curve"], summary: dict[str, Any]) -> None:
    """Writes all files of a study into a folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"curve": curve.label, "seed": cell.given.seed, "round": int(round)}
        | {name: float(values[s, t]) for name, values in curve.values.items()}
        for curve in curves
        for s, cell in enumerate(curve.cells)
        for t, round in enumerate(curve.rounds)
    ]
    records.replace(folder / "convergence.csv", records.table(rows))
    records.replace(folder / "summary.json", json.dumps(_plain(summary), indent=2, allow_nan=False) + "\n")
    drawn = []
    for name, label in _FIGURES.items():
        figure = _draw(curves, summary, name, label)
        if figure:
            for ending in ("png", "pdf"):
                figure.savefig(folder / f"{name}.{ending}", dpi=150)
            plt.close(figure)
            drawn.append(name)
    records.replace(folder / "summary.md", _page(summary, drawn))


def _plain(value: Any) -> Any:
    """For JSON, which has no NaN."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _draw(curves: Sequence["Curve"], summary: dict[str, Any], name: str, label: str) -> Figure | None:
    """Geometric mean over seeds, from least to largest as a band, with the fitted line in its window."""
    fig, axis = plt.subplots(figsize=(6.4, 4 + 0.2 * len(curves)), layout="constrained")
    some = False
    for number, (curve, facts) in enumerate(zip(curves, summary["curves"], strict=True)):
        values = np.where(curve.values[name] > 0, curve.values[name], np.nan)
        shown = np.isfinite(values).all(0)
        if not shown.any():
            continue
        some = True
        look: dict[str, Any] = {"color": COLORS[number % len(COLORS)]}
        look["linestyle"] = STYLES[number // len(COLORS) % len(STYLES)]
        x, values = curve.rounds[shown], values[:, shown]
        middle = np.exp(np.log(values).mean(0))
        fit = facts["slopes"].get(name, {}).get("log-log")
        axis.plot(x, middle, label=f"{curve.label}{_fitted(fit)}", **look)
        axis.fill_between(x, values.min(0), values.max(0), color=look["color"], alpha=0.15, linewidth=0)
        if fit:
            inside = (x >= fit["first"]) & (x <= fit["last"])
            line = fit["value"] * np.log(x[inside])
            line += np.log(middle[inside]).mean() - line.mean()
            axis.plot(x[inside], np.exp(line), color="black", linestyle=":", linewidth=1)
    if some:
        axis.set(xscale="log", yscale="log", xlabel="round", ylabel=label)
        axis.grid(alpha=0.3)
        fig.legend(loc="outside lower center", ncols=1, fontsize="small")
        return fig
    plt.close(fig)
    return None


def _fitted(fit: dict[str, Any] | None) -> str:
    return f", slope {_interval(fit)}" if fit else ""


def _interval(fit: dict[str, Any]) -> str:
    interval = f" [{fit['low']:.2f}, {fit['high']:.2f}]" if math.isfinite(fit["low"]) else ""
    return f"{fit['value']:.2f}{interval}"


def _page(summary: dict[str, Any], drawn: Sequence[str]) -> str:
    lines = ["# Convergence study", "", f"`{summary['command']}`", ""]
    head = (
        "curve",
        "seeds",
        "rounds",
        "step size",
        "squared gradient norm at the end, mean / largest device",
        "its log-log slope",
        "consensus error at the end",
        "its slope",
        "distance to the solution",
        "predicted",
        "mixing decay, measured / theory",
        "end points",
    )
    lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for curve in summary["curves"]:
        final = {name: float(np.mean(values)) for name, values in curve["final"].items()}
        fits = curve["slopes"]
        bias = [value for value in curve.get("predicted_bias", []) if math.isfinite(value)]
        decay = curve["mixing_decay_measured"], curve["mixing_decay_theory"]
        cells = (
            curve["label"],
            str(len(curve["seeds"])),
            f"{curve['flags']['rounds']:,}",
            f"{curve['flags']['learning_rate']:.3g}" + (" (derived)" if "learning_rate" in curve["derived"] else ""),
            f"{final['gradient_norm_sq_mean']:.2e} / {final['gradient_norm_sq_max']:.2e}",
            _interval(fits["gradient_norm_sq_mean"]["log-log"]) if fits["gradient_norm_sq_mean"]["log-log"] else "",
            f"{final['consensus_error']:.2e}" if math.isfinite(final["consensus_error"]) else "",
            _interval(fits["consensus_error"]["log-log"]) if fits["consensus_error"]["log-log"] else "",
            f"{final['distance_to_solution']:.2e}" if math.isfinite(final["distance_to_solution"]) else "",
            f"{np.mean(bias):.2e}" if bias else "",
            " / ".join("" if value is None else f"{value:.4f}" for value in decay),
            _verdicts(curve["endpoints"]),
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "Slopes are least-squares fits over the window that `summary.json` names, the mean over seeds with its 95 %",
    ]
    lines += [
        "bootstrap interval. The predicted distance is where the linear system of the resting point puts the devices.",
        "",
    ]
    lines += [f"![{_FIGURES[name]}]({name}.png)" for name in drawn]
    return "\n".join(lines) + "\n"


def _verdicts(endpoints: Sequence[dict[str, Any]]) -> str:
    kinds = [point["verdict"] for point in endpoints]
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
