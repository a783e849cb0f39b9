"""Figures of runs: learning curves of several runs, or the network of one run.

    python scripts/plots.py FIGURE.png RUN_DIR...
    python scripts/plots.py --network FIGURE.png RUN_DIR

Learning curves show accuracy or mean squared error against rounds and against bytes per device. Runs that differ only
in their seed are drawn as one curve, which is their mean.
"""

import collections
import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddjax.errors import InputError
from ddjax.experiments.fields import Role, fields, setting
from ddjax.experiments.files import replace
from ddjax.experiments.flags import Given, run
from ddjax.experiments.looks import (
    AXES,
    COLORS,
    STYLES,
    Axes,
    Figure,
    FigureCanvasBase,
    literal,
    log_ticks,
    looks,
    measured,
    style,
)
from ddjax.experiments.network_figure import has_server, picture, read_run
from ddjax.experiments.settings import Settings
from ddjax.learning import TASKS

# Settings that do not distinguish curves.
_SAME_CURVE = frozenset(
    name for name, field in fields(Settings).items() if field.role in (Role.SEED, Role.OUTPUT, Role.EXECUTION)
)

Curve = dict[str, np.ndarray]
Groups = dict[tuple, tuple[dict[str, str], list[Curve]]]  # settings as a key → settings by name, and a curve per seed


@dataclasses.dataclass(frozen=True)
class PlotSettings:
    """Settings of `plots.py`."""

    network: bool = setting(False, "Draw the network of one run instead of learning curves.", section="Figure")


def _flags(folder: Path) -> dict[str, Any]:
    """Return the settings of a run; raise `InputError` if the folder holds no run."""
    try:
        return dict(json.loads((folder / "config.json").read_text())["flags"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{str(folder)!r} holds no run (no readable config.json and metrics.csv)") from None


def _read(folder: Path) -> tuple[dict[str, str], Curve]:
    """Return the settings of a run that distinguish curves, and the columns of its `metrics.csv`."""
    flags = _flags(folder)
    try:
        with (folder / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        columns = {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        raise InputError(f"{str(folder)!r} holds no run (no readable config.json and metrics.csv)") from None
    return {name: str(value) for name, value in flags.items() if name not in _SAME_CURVE}, columns


def _mean(seeds: list[Curve]) -> Curve:
    rows = min(len(seed["round"]) for seed in seeds)
    if any((seed["round"][:rows] != seeds[0]["round"][:rows]).any() for seed in seeds):
        raise InputError("runs that differ only in their seed were evaluated at different rounds")
    return {name: np.mean([seed[name][:rows] for seed in seeds], axis=0) for name in seeds[0]}


def _labels(settings: list[dict[str, str]]) -> list[str]:
    """Name the system of each curve, and the flags in which the curve differs from most curves of that system."""

    def base(flags: dict[str, str]) -> str:
        if flags["algorithm"] == "distillation":
            return f"distillation, {flags['consensus']}"
        return {"dsgd": "D-SGD"}.get(flags["algorithm"], flags["algorithm"])

    labels = []
    for flags in settings:
        twins = [other for other in settings if base(other) == base(flags)]
        usual = {name: collections.Counter(twin.get(name) for twin in twins).most_common(1)[0][0] for name in flags}
        telling = [f"{name}={Path(flags[name]).name or 'default'}" for name in flags if flags[name] != usual[name]]
        labels.append(", ".join([base(flags), *telling]))
    return labels


def _detail(flags: dict[str, str]) -> str:
    """List the settings of a run that are not at their defaults."""
    known = fields(Settings)
    others = [
        name for name in flags if name in known and name != "algorithm" and flags[name] != str(known[name].default)
    ]
    return ", ".join(f"{name}={flags[name]}" for name in others)


def plot(figure: Path, runs: list[Path]) -> None:
    """Draw runs in one figure with two panels: the mean score as a line, the range over devices as a band.

    Args:
      figure: file to write; its extension determines the format.
      runs: output folders of `train.py`, each with `config.json` and `metrics.csv`.

    Raises:
      InputError: a folder holds no run, runs have different metrics, or Matplotlib cannot write the format.
    """
    ending = _ending(figure)
    groups: Groups = {}
    for folder in runs:
        flags, columns = _read(folder)
        groups.setdefault(tuple(sorted(flags.items())), (flags, []))[1].append(columns)
    metrics = {metric for _, seeds in groups.values() for metric in TASKS if f"{metric}_mean" in seeds[0]}
    if len(metrics) > 1:
        raise InputError("runs with accuracy and runs with mse have no axis in common; draw them separately")
    if not metrics:
        raise InputError(f"the metrics.csv of {str(runs[0])!r} has neither accuracy nor mse")
    (metric,) = metrics
    labels = _labels([flags for flags, _ in groups.values()])
    with style():
        content = _figure(groups, labels, metric, ending)
    _write(figure, content)


def _ending(figure: Path) -> str:
    """Return the format of a figure; raise `InputError` if Matplotlib cannot write it."""
    ending = figure.suffix[1:].lower()
    if not ending:
        raise InputError(f"the figure {str(figure)!r} needs an extension, such as .png or .pdf")
    if ending not in (endings := FigureCanvasBase.get_supported_filetypes()):
        raise InputError(f"cannot write {str(figure)!r}: .{ending} is not one of {', '.join(endings)}")
    return ending


def _write(figure: Path, content: bytes) -> None:
    try:
        replace(figure, content)
    except OSError as error:
        raise InputError(f"cannot write {str(figure)!r}: {error.strerror}") from None


def _figure(groups: Groups, labels: list[str], metric: str, ending: str) -> bytes:
    """Return the figure as the bytes of a file with this extension."""
    task = TASKS[metric]
    fig = Figure(figsize=(10, 4 + 0.2 * len(groups)), layout="constrained")
    axes = fig.subplots(1, 2, sharey=True)
    told = [(flags["algorithm"], _detail(flags)) for flags, _ in groups.values()]
    for label, number, (flags, seeds) in zip(labels, looks(told), groups.values(), strict=True):
        look = {"color": COLORS[number % len(COLORS)], "linestyle": STYLES[number // len(COLORS)]}
        mean = _mean(seeds)
        label = literal(label) + (f" ({len(seeds)} seeds)" if len(seeds) > 1 else "")
        scores = [mean[f"{metric}_{name}"] for name in ("mean", task.worst, task.best)]
        _draw(axes[0], mean["round"], scores, look, label)
        sent = mean["bytes_sent_total"] / int(flags["devices"]) / 1e6  # including bytes that a server sends
        if sent.any():
            _draw(axes[1], sent[1:], [score[1:] for score in scores], look, label)  # round 0 has no place on a log axis
        else:
            axes[1].axhline(scores[0][-1], color=look["color"], linestyle=(0, (1, 1)), linewidth=1)
    named = measured(metric, (flags.get("evaluate_on", "test") for flags, _ in groups.values()))
    axes[0].set(xlabel="round", ylabel=named, yscale=AXES[metric][1])
    axes[1].set(xlabel="MB sent per device, including a server's share", xscale="log")
    for axis in axes:
        axis.grid(alpha=0.3)
    log_ticks(axes[1].xaxis)
    title = "mean (line), worst (dotted) to best device"
    handles, names = axes[0].get_legend_handles_labels()
    short = len(names) <= 4 and max(map(len, names)) < 35
    fig.legend(handles, names, title=title, loc="outside lower center", ncols=4 if short else 1, fontsize="small")
    content = io.BytesIO()
    fig.savefig(content, format=ending, dpi=120)
    return content.getvalue()


def _draw(axis: Axes, x: np.ndarray, scores: list[np.ndarray], look: dict[str, Any], label: str) -> None:
    mean, worst, best = scores
    axis.plot(x, mean, label=label, **look)
    axis.plot(x, worst, color=look["color"], linestyle=":", linewidth=1)
    axis.fill_between(x, worst, best, color=look["color"], alpha=0.12, linewidth=0)


def plot_network(figure: Path, run: Path) -> None:
    """Draw the devices of a run, coloured by their scores at up to four evaluations, and the links between them.

    Args:
      figure: file to write; its extension determines the format.
      run: output folder of `train.py`, with `config.json` and `devices.csv`.

    Raises:
      InputError: the folder holds no run or no scores of devices, or Matplotlib cannot write the format.
    """
    ending = _ending(figure)
    flags = _flags(run)
    found = read_run(run, flags)
    (name,) = _labels([{key: str(value) for key, value in flags.items()}])
    if len(found.links.ends) and not has_server(found.links, len(found.models)):
        name += f" on {flags['topology']}"
    _write(figure, picture(found, name, ending))


def _plots(given: Given) -> None:
    """Draw the runs that the command line names."""
    settings, arguments = given.take(PlotSettings), given.arguments
    if len(arguments) < 2 or (settings.network and len(arguments) > 2):
        raise InputError("usage: plots.py FIGURE.png RUN_DIR..., or plots.py --network FIGURE.png RUN_DIR")
    figure, *runs = map(Path, arguments)
    if settings.network:
        plot_network(figure, *runs)
    else:
        plot(figure, runs)
    print(f"written to {figure}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with the arguments of the process, or with `argv`, and return its exit code."""
    summary = "Draw runs: python scripts/plots.py FIGURE.png RUN_DIR..."
    return run(_plots, fields(PlotSettings), summary, argv, arguments="FIGURE.png RUN_DIR...")
