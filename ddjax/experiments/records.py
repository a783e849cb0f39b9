"""What is recorded of a run: its settings, a row per evaluation, a summary."""

import csv
import importlib.util
import io
import json
import math
import os
import platform
import uuid
from collections.abc import Collection, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from absl import flags

import ddjax
from ddjax.errors import InputError
from ddjax.experiments import build, execution, options
from ddjax.learning import tasks
from ddjax.simulation import memory
from ddjax.simulation.engine import Evaluation


def config(given: flags.FlagValues) -> dict:
    """Every flag as run, versions and backend."""
    return {"flags": options.values(given), **environment()}


def environment() -> dict:
    """Versions and backend."""
    packages = ("ddjax", "jax", "jaxlib", "flax", "optax", "numpy", "networkx")
    versions = {"python": platform.python_version()} | {name: version(name) for name in packages}
    return {"versions": versions, **execution.settings()}


def row(evaluation: Evaluation) -> dict:
    """A row of `metrics.csv`."""
    metric, score, traffic = evaluation.metric, evaluation.score, evaluation.bytes
    seconds = evaluation.seconds_train
    return {
        "round": evaluation.round,
        f"{metric}_mean": score.mean(),
        f"{metric}_min": score.min(),
        f"{metric}_max": score.max(),
        f"{metric}_std": score.std(),
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


def shown(metric: str, score: float) -> str:
    """A score as a reader sees it."""
    return f"{score:.3f}" if metric == "accuracy" else f"{score:.3g}"


def brief(evaluation: Evaluation) -> str:
    """The mean and the worst device's score."""
    metric, score = evaluation.metric, evaluation.score
    worst = getattr(score, tasks.TASKS[metric].worst)()
    return f"{metric} {shown(metric, score.mean())}, worst {shown(metric, worst)}"


def _mean(counts: tuple[int, ...]) -> int | float:
    total = sum(counts)
    return total // len(counts) if total % len(counts) == 0 else total / len(counts)


def summary(
    given: flags.FlagValues,
    built: build.Experiment,
    last: Evaluation,
    seconds_compile: float,
    rows: Collection[Mapping[str, Any]],
) -> dict:
    """What `summary.json` holds.

    Args:
      given: flags as run.
      built: the experiment.
      last: its last evaluation.
      seconds_compile: spent compiling.
      rows: those of `metrics.csv`, as they are or as read from there.
    """
    messages = built.algorithm.message_bytes(built.problem)
    parameters = built.population.parameter_counts()
    return {
        "algorithm": given.algorithm,
        "dataset": given.dataset,
        "devices": given.devices,
        "rounds": last.round,
        "seed": given.seed,
        "parameters_per_device": parameters if len(parameters) > 1 else parameters[0],
        "spectral_gap": built.topology.spectral_gap if messages.peer else None,
        **{
            name: None if value == "" else value
            for name, value in row(last).items()
            if name not in ("round", "seconds_train", "rounds_per_second")
        },
        "consensus_step_size": built.consensus_step_size,
        "message_bytes": {way: kinds for way, kinds in messages._asdict().items() if kinds},
        "target_accuracy": reached(rows, build.target_accuracies(given)),
        "seconds_compile": round(seconds_compile, 3),
        "seconds_train": round(last.seconds_train, 3),
        "device_steps_per_second": round(last.steps / last.seconds_train, 1) if last.seconds_train else None,
    }


def reached(rows: Collection[Mapping[str, Any]], targets: list[float]) -> dict[str, dict | None]:
    """Round and bytes at the first evaluation with a mean accuracy of each target; `None` if there was none."""
    names = ("round", "bytes_sent_total", "bytes_sent_per_device", "bytes_received_per_device")
    found: dict[str, dict | None] = {}
    for target in targets:
        first = next((row for row in rows if float(row["accuracy_mean"]) >= target), None)
        found[f"{target:g}"] = {name: json.loads(str(first[name])) for name in names} if first else None
    return found


def memory_needed(simulation: ddjax.Simulation) -> str:
    """A line on the memory the run takes; raises `InputError` where there is not enough."""
    (least, peak), free = memory.estimate(simulation), memory.available()
    where = "free here" if jax.default_backend() == "cpu" else "free on an accelerator"
    if least > free:
        raise InputError(
            f"this needs at least {_size(least)} of memory, and {_size(free)} are {where}; "
            "take fewer devices, a smaller model or a smaller reference set, or more accelerators"
        )
    return f"{_size(least)} held, up to {_size(peak)} at the peak of a round; {_size(free)} are {where}"


def _size(count: int) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows of the same columns as CSV; empty of none."""
    text, writer = io.StringIO(newline=""), None
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(text, row)
            writer.writeheader()
        writer.writerow(row)
    return text.getvalue()


def output_folder(given: str, default: str, resume: bool | None = None) -> Path:
    """The folder to write into, which need not be there.

    Args:
      given: `--output_dir`.
      default: where that is empty.
      resume: whether it may hold something, since what is there is gone on with; `None` where that cannot be.

    Raises:
      InputError: it is a file, or holds something.
    """
    try:
        path = Path(given or default).expanduser()
        if path.exists() and not path.is_dir():
            raise InputError(f"output_dir {str(path)!r} is a file")
        if not resume and path.is_dir() and any(path.iterdir()):
            hint = "" if resume is None else ", or go on with --resume"
            raise InputError(f"output_dir {str(path)!r} is not empty; name a new one{hint}")
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"output_dir {given!r}: {getattr(error, 'strerror', None) or error}") from None
    return path


def write(path: Path, content: str | bytes) -> None:
    """Writes a file and sees it on the disk, so that what is renamed after it is whole even if the machine stops."""
    with path.open("wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode())
        file.flush()
        os.fsync(file.fileno())


def replace(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all."""
    fresh = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        write(fresh, content)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


class Scalars:
    """The numbers of each row for TensorBoard.

    Args:
      folder: of the event files, made when the first row comes; `None` where they are not wanted.

    Raises:
      InputError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path | None):
        self._folder = folder
        self._writer: Any = None
        if folder and not importlib.util.find_spec("tensorboard"):
            raise InputError("--tensorboard needs TensorBoard, which is not installed: pip install -e '.[tensorboard]'")

    def add(self, row: Mapping[str, Any]) -> None:
        """A scalar a column, at the row's round."""
        if not self._folder:
            return
        if not self._writer:
            from tensorboard.summary import Writer  # an optional extra

            self._writer = Writer(str(self._folder))
        for name, value in row.items():
            if name != "round" and value != "":
                self._writer.add_scalar(name, value, row["round"])
        self._writer.flush()

    def close(self) -> None:
        """Ends the file."""
        if self._writer:
            self._writer.close()
