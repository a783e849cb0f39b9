"""Learning curves of runs: accuracy against rounds and against bytes per device.

Usage: python scripts/plots.py FIGURE.png RUN_DIR...
Runs that differ in their seed alone are drawn as one curve, their mean.
"""

import csv
import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

# Okabe and Ito's colours, which colour-blind readers can tell apart.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def _curves(run: Path) -> dict[str, np.ndarray]:
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}


def _label(config: dict) -> str:
    if config["algorithm"] != "distillation":
        return {"dsgd": "D-SGD"}.get(config["algorithm"], config["algorithm"])
    return f"distillation, {config['consensus']}"


def plot(figure: Path, runs: list[Path]) -> None:
    """Draws the runs into one figure of two panels: mean accuracy as a line, from worst to best device as a band.

    Args:
      figure: file to write; its ending picks the format.
      runs: output folders of `train.py`, each with `config.json` and `metrics.csv`.
    """
    curves: dict[str, list[dict[str, np.ndarray]]] = {}
    for run in runs:
        config = json.loads((run / "config.json").read_text())
        curves.setdefault(_label(config["flags"]), []).append(_curves(run))
    fig, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for color, (label, seeds) in zip(_COLORS * len(curves), curves.items(), strict=False):
        mean = {name: np.mean([seed[name] for seed in seeds], axis=0) for name in seeds[0]}
        for axis, x in zip(axes, (mean["round"], mean["bytes_sent_per_device"]), strict=True):
            shown = slice(1, None) if axis is axes[1] else slice(None)  # no bytes yet at round 0
            if axis is axes[1] and not x.any():
                axis.axhline(mean["accuracy_mean"][-1], color=color, linestyle="--", linewidth=1)
                continue
            axis.plot(x[shown], mean["accuracy_mean"][shown], color=color, label=label)
            axis.plot(x[shown], mean["accuracy_min"][shown], color=color, linestyle=":", linewidth=1)
            axis.fill_between(
                x[shown], mean["accuracy_min"][shown], mean["accuracy_max"][shown], color=color, alpha=0.12, linewidth=0
            )
    axes[0].set(xlabel="round", ylabel="test accuracy")
    axes[1].set(xlabel="bytes sent per device", xscale="log")
    for axis in axes:
        axis.grid(alpha=0.3)
    axes[0].legend(
        title="mean (line), worst (dotted) to best device", loc="lower right", fontsize="small", title_fontsize="small"
    )
    fig.savefig(figure, dpi=120)
    plt.close(fig)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    plot(Path(sys.argv[1]), [Path(run) for run in sys.argv[2:]])
