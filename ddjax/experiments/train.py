"""Trains a network of devices and writes what was measured.

Leaves in --output_dir: config.json, metrics.csv (a row per evaluation), summary.json, links.csv (traffic of every
directed link), learning_curves.png.
"""

import csv
import datetime
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

import ddjax
from ddjax.errors import InputError
from ddjax.experiments import build, execution, options, records
from ddjax.experiments.options import FLAGS
from ddjax.learning import tasks
from ddjax.mixing.compression import number_bytes
from ddjax.models.architectures import parse_models
from ddjax.simulation import accounting
from ddjax.simulation.checkpoint import Checkpoints
from ddjax.simulation.engine import Evaluation, Progress

# Flags that a resumed run may change; of these, rounds only where no schedule is stretched over them.
_MAY_CHANGE = (
    "resume",
    "output_dir",
    "checkpoint_every",
    "rounds",
    "target_accuracy",
    "tensorboard",
    "device_chunk",
    "host_devices",
    "coordinator_address",
    "num_processes",
    "process_id",
)


class OutputDir:
    """The folder of a run: refused if it holds anything, unless a run is resumed. Process 0 alone writes into it."""

    def __init__(self) -> None:
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        name = Path(FLAGS.dataset.split(":")[0]).stem
        if FLAGS.resume and not FLAGS.output_dir:
            raise InputError("--resume needs the --output_dir of the run to go on with")
        default = f"runs/{FLAGS.algorithm}-{name}-{stamp}"
        self.path = records.output_folder(FLAGS.output_dir, default, FLAGS.resume)
        self._metrics = self.path / "metrics.csv"
        self._writes = jax.process_index() == 0
        if FLAGS.resume:
            self._check_config()
            self._rows = self.rows()

    def _check_config(self) -> None:
        try:
            saved = dict(json.loads((self.path / "config.json").read_text())["flags"])
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(
                f"output_dir {str(self.path)!r} holds no run to resume (no readable config.json)"
            ) from None
        for name, value in options.values(FLAGS).items():
            if name not in _MAY_CHANGE and saved.get(name) != value:
                raise InputError(f"cannot resume with --{name}={value}: the run had {saved.get(name)}")
        stretched = [
            name
            for name in ("learning_rate_schedule", "consensus_step_size_schedule")
            if saved[name] in ("cosine", "inverse_time")
        ]
        if stretched and saved.get("rounds") != FLAGS.rounds:
            raise InputError(
                f"cannot resume with --rounds={FLAGS.rounds}: the run had {saved.get('rounds')}, over which its "
                f"{stretched[0]} is stretched"
            )

    def rows(self) -> list[dict[str, str]]:
        """Those of `metrics.csv`; raises `InputError` where it is missing or damaged."""
        try:
            with self._metrics.open(newline="") as file:
                rows = list(csv.DictReader(file, strict=True))
            whole = all(int(row["round"]) >= 0 and None not in row and None not in row.values() for row in rows)
            if rows and whole:
                return rows
        except (OSError, ValueError, KeyError, TypeError, csv.Error):
            pass
        raise InputError(f"cannot resume: {str(self._metrics)!r} is missing or damaged")

    def create(self, resumed_round: int = 0) -> None:
        """Makes the folder and writes `config.json`; of a resumed `metrics.csv`, keeps the rows before a round."""
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("all have seen the folder as it was")
        if not self._writes:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=bool(FLAGS.output_dir))
            records.replace(self.path / "config.json", json.dumps(records.config(FLAGS), indent=2) + "\n")
            if FLAGS.resume:
                for name in ("summary.json", "links.csv"):
                    (self.path / name).unlink(missing_ok=True)
                kept = (row for row in self._rows if int(row["round"]) < resumed_round)
                records.replace(self._metrics, records.table(kept))
        except OSError as error:
            raise InputError(f"cannot write to output_dir {str(self.path)!r}: {error.strerror}") from None

    def add(self, row: dict) -> None:
        """Adds a row to `metrics.csv`, after a header if it is the first."""
        if not self._writes:
            return
        with self._metrics.open("a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(row)

    def add_links(self, rows: Iterable[dict]) -> None:
        """Writes `links.csv`, if there is anything to write."""
        if table := records.table(rows):
            records.replace(self.path / "links.csv", table)

    def summarize(self, summary: dict) -> None:
        """Writes `summary.json`."""
        records.replace(self.path / "summary.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")


def describe(built: build.Experiment) -> None:
    """Says in a few lines what is being run."""
    problem, count = built.problem, np.asarray(built.problem.private_counts)
    sizes = built.population.parameter_counts()
    names = [name for name, _ in parse_models(FLAGS.models, FLAGS.devices)]
    devices = ", ".join(
        f"{group.size} × {name} ({size:,} parameters)"
        for group, name, size in zip(built.population.groups, names, sizes, strict=True)
    )
    print(f"{FLAGS.algorithm} on {FLAGS.dataset}, {FLAGS.rounds:,} rounds, {jax.default_backend()}")
    print(f"  devices    {devices}")
    partition = FLAGS.partition or tasks.of(problem.y).partition
    print(
        f"  data       {partition} partition, {count.min()} to {count.max()} private examples each; "
        f"{len(problem.reference)} reference, {len(problem.x_test)} test"
    )
    messages = built.algorithm.message_bytes(problem)
    if messages.peer:
        network = built.topology
        gap = network.spectral_gap
        print(
            f"  graph      {network.name}, {network.directed_edges:,.6g} directed links, "
            f"spectral gap {'unknown' if gap is None else format(gap, '.3g')}, weights {network.weights}"
        )
    weights = number_bytes() * max(sizes)
    for way, text in (("peer", "to a neighbour"), ("up", "to the server"), ("down", "from the server")):
        for kind, size in getattr(messages, way).items():
            print(f"  message    {size:,} bytes {text}: {kind}; largest model {weights:,} ({size / weights:.3g}×)")


class Display:
    """Live progress on stderr: redrawn on a terminal, else a line every ten seconds.

    Args:
      start: rounds done already.
    """

    def __init__(self, start: int):
        terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=FLAGS.rounds, initial=start, unit="round", disable=not terminal, dynamic_ncols=True, smoothing=0.1
        )
        self._start, self._said, self._latest = start, time.monotonic(), ""
        self._seconds: float | None = None  # trained before this run went on
        self.seconds_compile = 0.0

    def progress(self, progress: Progress) -> None:
        """After each scan."""
        self.seconds_compile = progress.seconds_compile
        if self._seconds is None:
            self._seconds = progress.seconds_train
        self._bar.update(progress.round - self._bar.n)
        spent, done = progress.seconds_train - self._seconds, progress.round - self._start
        if self._bar.disable and jax.process_index() == 0 and spent > 2 and time.monotonic() - self._said > 10:
            self._said = time.monotonic()
            rate = done / spent
            print(
                f"round {progress.round:,}/{FLAGS.rounds:,}: {self._latest}, {rate:.3g} rounds/s, "
                f"about {(FLAGS.rounds - progress.round) / rate:.0f} s left",
                file=sys.stderr,
            )

    def evaluation(self, latest: Evaluation) -> None:
        """After each evaluation."""
        self._latest = records.brief(latest)
        self._bar.set_postfix_str(self._latest)

    def close(self) -> None:
        """Leaves the last state standing."""
        self._bar.close()


def train() -> None:
    """Runs what the flags describe."""
    execution.start(FLAGS)
    folder = OutputDir()
    built = build.build(FLAGS)
    checkpoints = Checkpoints(folder.path / "checkpoints")
    resume = checkpoints.restore(built.simulation) if FLAGS.resume else None
    if resume and resume[1].round > FLAGS.rounds:
        raise InputError(f"cannot resume with --rounds={FLAGS.rounds}: the checkpoint is of round {resume[1].round}")
    memory_needed = records.memory_needed(built.simulation)
    scalars = records.Scalars(folder.path / "tensorboard" if FLAGS.tensorboard and not jax.process_index() else None)
    folder.create(resume[1].round if resume else 0)
    describe(built)
    print(f"  memory     {memory_needed}", flush=True)
    if resume:
        print(f"  resumed    at round {resume[1].round:,}")
    display = Display(resume[1].round if resume else 0)
    try:
        for snapshot, latest in ddjax.evaluations(
            built.simulation,
            key=jax.random.key(FLAGS.seed),
            rounds=FLAGS.rounds,
            eval_every=FLAGS.eval_every,
            resume=resume,
            progress=display.progress,
        ):
            row = records.row(latest)
            folder.add(row)
            scalars.add(row)
            if FLAGS.checkpoint_every and latest.round and latest.round % FLAGS.checkpoint_every == 0:
                checkpoints.save(snapshot, latest)
            display.evaluation(latest)
    finally:
        display.close()
        scalars.close()
        if jax.process_index() == 0 and (folder.path / "metrics.csv").exists():
            from ddjax.experiments.plots import plot  # slow to import

            plot(folder.path / "learning_curves.png", [folder.path])
    if jax.process_index():
        return
    message_bytes = built.algorithm.message_bytes(built.problem)
    folder.add_links(accounting.by_link(snapshot.messages, message_bytes, built.problem.network))
    finish(folder, built, latest, display.seconds_compile)


def finish(folder: OutputDir, built: build.Experiment, last: Evaluation, seconds_compile: float) -> None:
    """Writes `summary.json` and prints the table at the end."""
    summary = records.summary(FLAGS, built, last, seconds_compile, folder.rows())
    folder.summarize(summary)
    print(f"\n{'':12}{'mean':>9}{'worst':>9}{'best':>9}{'std':>9}")
    task = tasks.TASKS[last.metric]

    def line(name: str, score: np.ndarray) -> None:
        figures = (getattr(score, name)() for name in ("mean", task.worst, task.best, "std"))
        print(f"{name:12}" + "".join(f"{records.shown(last.metric, figure):>9}" for figure in figures))

    line(last.metric, last.score)
    start = 0
    if len(built.population.groups) > 1:
        for (name, _), group in zip(parse_models(FLAGS.models, FLAGS.devices), built.population.groups, strict=True):
            line(f"  {name}", last.score[start : start + group.size])
            start += group.size
    print(f"{'ensemble':12}{records.shown(last.metric, last.ensemble_score):>9}   of the mean soft decision")
    print(f"{'disagreement':12}{last.disagreement:9.3g}")
    print(
        f"{'sent':12}{summary['bytes_sent_per_device']:>9,.0f}   bytes a device, {summary['bytes_sent_total']:,} in all"
        + (f", of which {summary['bytes_sent_server']:,} by the server" if summary["bytes_sent_server"] else "")
    )
    for target, met in summary["target_accuracy"].items():
        after = (
            f"round {met['round']:,}, {met['bytes_sent_per_device']:,.0f} bytes sent a device" if met else "not reached"
        )
        print(f"{target:12}{'':9}   {after}")
    print(f"{'time':12}{last.seconds_train:9.1f}   s training, {seconds_compile:.1f} s compiling")
    print(f"\nwritten to {folder.path}")


def main() -> int:
    """Runs the command; the exit code."""
    return options.main(train, "Trains a network of simulated devices: python scripts/train.py --name=value …")
