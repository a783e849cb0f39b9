"""Records of a run: its settings, the rows of each evaluation, and a summary."""

import json
import math
import platform
from collections.abc import Collection, Mapping
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from ddjax import __version__
from ddjax.errors import InputError
from ddjax.experiments import execution
from ddjax.experiments.experiment import Experiment
from ddjax.experiments.extensions import digests
from ddjax.experiments.inputs import device_groups
from ddjax.experiments.settings import Settings
from ddjax.experiments.units import size
from ddjax.learning import TASKS
from ddjax.simulation import Evaluation, Simulation, memory


def config(built: Experiment) -> dict:
    """Return the content of `config.json`: all settings as run, facts about the data, versions and backend."""
    settings = built.settings
    return {"flags": settings.values(), "include": digests(settings.include), "data": built.facts, **environment()}


def environment() -> dict:
    """Return the versions of packages, and the backend."""
    return {"versions": versions(), **execution.environment()}


def versions() -> dict[str, str]:
    """Return the versions of Python and of each package that affects results."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy", "networkx")
    return {"python": platform.python_version(), "ddjax": __version__} | {name: version(name) for name in packages}


def _labels(settings: Settings) -> np.ndarray:
    """Return the `[N]` models of the devices, each with the device's view if there are several views."""
    groups = device_groups(settings)
    return np.repeat([group.label for group in groups], [group.size for group in groups])


def by_model(settings: Settings, score: np.ndarray) -> dict[str, np.ndarray]:
    """Return model (and view) → scores of its devices; empty if all devices share one model and view."""
    labels = _labels(settings)
    names = list(dict.fromkeys(labels.tolist()))
    return {name: score[labels == name] for name in names} if len(names) > 1 else {}


def row(settings: Settings, evaluation: Evaluation) -> dict:
    """Return the row of `metrics.csv` for one evaluation."""
    metric, score, traffic = evaluation.metric, evaluation.score, evaluation.bytes
    seconds = evaluation.seconds_train
    return {
        "round": evaluation.round,
        f"{metric}_mean": score.mean(),
        f"{metric}_min": score.min(),
        f"{metric}_max": score.max(),
        f"{metric}_std": score.std(),
        **{f"{metric}_mean_{name}": own.mean() for name, own in by_model(settings, score).items()},
        f"ensemble_{metric}": evaluation.ensemble_score,
        "disagreement": evaluation.disagreement,
        "loss": "" if math.isnan(evaluation.loss) else evaluation.loss,
        "distillation_loss": "" if math.isnan(evaluation.distillation_loss) else evaluation.distillation_loss,
        "bytes_sent_total": traffic.total,
        "bytes_sent_per_device": _mean(traffic.sent),
        "bytes_sent_max": max(traffic.sent),
        "bytes_received_per_device": _mean(traffic.received),
        "bytes_received_max": max(traffic.received),
        "bytes_sent_server": traffic.server,
        "bytes_link_max": traffic.busiest_link,
        "device_steps": evaluation.steps,
        "seconds_train": round(seconds, 4),
        "rounds_per_second": round(evaluation.round / seconds, 2) if seconds else "",
    }


def device_rows(settings: Settings, evaluation: Evaluation) -> list[dict]:
    """Return a row of `devices.csv` per device for one evaluation; the one model of pooled data counts as device 0."""
    scores = enumerate(zip(_labels(settings), evaluation.score, strict=False))
    return [
        {"round": evaluation.round, "device": device, "model": model, evaluation.metric: score}
        for device, (model, score) in scores
    ]


def shown(metric: str, score: float) -> str:
    """Format a score for readers."""
    return f"{score:.3f}" if metric == "accuracy" else f"{score:.3g}"


def brief(evaluation: Evaluation) -> str:
    """Describe the mean score and the worst device's score in a few words."""
    metric, score = evaluation.metric, evaluation.score
    worst = getattr(score, TASKS[metric].worst)()
    return f"{metric} {shown(metric, score.mean())}, worst {shown(metric, worst)}"


def _mean(counts: tuple[int, ...]) -> int | float:
    total = sum(counts)
    return total // len(counts) if total % len(counts) == 0 else total / len(counts)


def summary(
    built: Experiment,
    last: Evaluation,
    seconds_compile: float,
    rows: Collection[Mapping[str, Any]],
) -> dict:
    """Return the content of `summary.json`.

    Args:
      built: the experiment.
      last: last evaluation of the run.
      seconds_compile: seconds spent compiling.
      rows: rows of `metrics.csv`, either new or read from the file.
    """
    messages = built.algorithm.message_bytes(built.problem)
    parameters = built.population.parameter_counts()
    return {
        "algorithm": built.settings.algorithm,
        "dataset": built.settings.dataset,
        "devices": built.settings.devices,
        "rounds": last.round,
        "seed": built.settings.seed,
        "parameters_per_device": parameters if len(parameters) > 1 else parameters[0],
        "spectral_gap": built.topology.spectral_gap if messages.peer else None,
        **{
            name: None if value == "" else value
            for name, value in row(built.settings, last).items()
            if name not in ("round", "seconds_train", "rounds_per_second")
        },
        "learning_rate": built.learning_rate,
        "consensus_step_size": built.consensus_step_size,
        "message_bytes": {way: kinds for way, kinds in messages._asdict().items() if kinds},
        "target_accuracy": reached(rows, built.settings.target_accuracies()),
        "seconds_compile": round(seconds_compile, 3),
        "seconds_train": round(last.seconds_train, 3),
        "device_steps_per_second": round(last.steps / last.seconds_train, 1) if last.seconds_train else None,
    }


def reached(rows: Collection[Mapping[str, Any]], targets: list[float]) -> dict[str, dict | None]:
    """Return target → round and bytes of the first evaluation that met it; `None` if no evaluation did."""
    names = ("round", "bytes_sent_total", "bytes_sent_per_device", "bytes_received_per_device")
    found: dict[str, dict | None] = {}
    for target in targets:
        first = next((row for row in rows if float(row["accuracy_mean"]) >= target), None)
        found[f"{target:g}"] = {name: json.loads(str(first[name])) for name in names} if first else None
    return found


def memory_needed(simulation: Simulation) -> str:
    """Describe the memory that the run needs; raise `InputError` if there is not enough."""
    (least, peak), free = memory.estimate(simulation), memory.available()
    where = "free here" if jax.default_backend() == "cpu" else "free on an accelerator"
    if least > free:
        raise InputError(
            f"this run needs at least {size(least)} of memory, but only {size(free)} is {where}; "
            "use fewer devices, a smaller model or a smaller reference set, or more accelerators"
        )
    return f"{size(least)} held, up to {size(peak)} at the peak of a round; {size(free)} is {where}"
