"""Trains a network of devices and writes what was measured.

Leaves in --output_dir: config.json, metrics.csv (a row per evaluation), summary.json, links.csv (traffic of every
directed link), learning_curves.png.
"""

from collections.abc import Sequence

import jax

from ddjax.errors import InputError
from ddjax.experiments import console, execution, records
from ddjax.experiments.experiment import build
from ddjax.experiments.fields import fields
from ddjax.experiments.flags import Given, run
from ddjax.experiments.progress import Display
from ddjax.experiments.run_folder import RunFolder
from ddjax.experiments.scalars import Scalars
from ddjax.experiments.settings import Settings
from ddjax.simulation import Checkpoints, accounting


def train(given: Given) -> None:
    """Runs what the command line describes."""
    settings = given.take(Settings)
    settings.check()
    execution.start(settings)
    folder = RunFolder(settings)
    built = build(settings)
    checkpoints = Checkpoints(folder.path / "checkpoints")
    resume = checkpoints.restore(built.simulation) if settings.resume else None
    done = resume[1].round if resume else 0
    if done > settings.rounds:
        raise InputError(f"cannot resume with --rounds={settings.rounds}: the checkpoint is of round {done}")
    memory_needed = records.memory_needed(built.simulation)
    first = jax.process_index() == 0
    scalars = Scalars(folder.path / "tensorboard" if settings.tensorboard and first else None)
    folder.create(done)
    console.describe(built)
    print(f"  memory     {memory_needed}", flush=True)
    if resume:
        print(f"  resumed    at round {done:,}")
    display = Display(settings.rounds, done)
    try:
        for snapshot, latest in built.iterate(resume, display.progress):
            row = records.row(latest)
            folder.add(row)
            scalars.add(row)
            if settings.checkpoint_every and latest.round and latest.round % settings.checkpoint_every == 0:
                checkpoints.save(snapshot, latest)
            display.evaluation(latest)
    finally:
        display.close()
        scalars.close()
        if first and (folder.path / "metrics.csv").exists():
            from ddjax.experiments.plots import plot  # slow to import

            plot(folder.path / "learning_curves.png", [folder.path])
    if not first:
        return
    message_bytes = built.algorithm.message_bytes(built.problem)
    folder.add_links(accounting.by_link(snapshot.messages, message_bytes, built.problem.network))
    summary = records.summary(built, latest, display.seconds_compile, folder.rows())
    folder.summarize(summary)
    console.conclude(built, latest, summary)
    print(f"\nwritten to {folder.path}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with the arguments of the process, or with `argv`; returns its exit code."""
    summary = "Trains a network of simulated devices: python scripts/train.py --name=value …"
    return run(train, fields(Settings), summary, argv)
