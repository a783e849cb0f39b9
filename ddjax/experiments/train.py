"""Training run of a network of devices.

The run writes into --output_dir: config.json, metrics.csv (a row per evaluation), devices.csv (a row per evaluation and
device), summary.json, links.csv (traffic of every directed link), learning_curves.png and network.png.
"""

import shlex
import signal
from collections.abc import Sequence
from functools import partial

import jax

from ddjax.errors import InputError
from ddjax.experiments import console, execution, records, signals
from ddjax.experiments.clock import Clock, process_age
from ddjax.experiments.drawing import optional
from ddjax.experiments.experiment import build
from ddjax.experiments.fields import fields
from ddjax.experiments.flags import Given, run
from ddjax.experiments.progress import Display
from ddjax.experiments.run_folder import RunFolder, resumed
from ddjax.experiments.scalars import Scalars, check_tensorboard
from ddjax.experiments.settings import Settings
from ddjax.simulation import Checkpoints, accounting

# The phase `compiling` includes building the programs and, unless the run is resumed, the first evaluation;
# `evaluating` includes writing rows and checkpoints.
_PHASES = ("starting", "data", "compiling", "training", "evaluating", "drawing")


def train(given: Given, clock: Clock) -> None:
    """Run the experiment that the command line describes."""
    settings = resumed(given.take(Settings), given.present)
    settings.check()
    if settings.tensorboard:
        check_tensorboard()
    execution.start(settings)
    folder = RunFolder(settings)
    try:
        _train(settings, folder, clock)
    finally:
        folder.close()


def _train(settings: Settings, folder: RunFolder, clock: Clock) -> None:
    """Run the experiment that settings describe, and write its results into a folder."""
    built = build(settings, entering=clock.enter)
    folder.check_data(built.facts)
    checkpoints = Checkpoints(folder.path / "checkpoints")
    resume = checkpoints.restore(built.simulation) if settings.resume else None
    done = int(resume[0].state.round) if resume else 0
    if done > settings.rounds:
        raise InputError(f"cannot resume with --rounds={settings.rounds}: the checkpoint is of round {done}")
    memory_needed = records.memory_needed(built.simulation)
    first = jax.process_index() == 0
    folder.create(built, resume[1].round if resume else 0)
    console.describe(built)
    print(f"  memory     {memory_needed}", flush=True)
    if resume:
        print(f"  resumed    at round {done:,}")
    display = Display(settings.rounds, settings.eval_every, done)
    scalars = Scalars(folder.path / "tensorboard" if settings.tensorboard and first else None, settings.values())
    signals.poll()
    try:
        shown, summary = None, None
        for snapshot, latest in built.iterate(resume, display.progress, lambda: bool(signals.asked())):
            clock.enter("evaluating")  # includes training until the two are separated below
            if latest is shown:  # interrupted
                due = settings.checkpoint_every > 0
            else:
                due = 0 < settings.checkpoint_every <= latest.round and latest.round % settings.checkpoint_every == 0
                shown, row = latest, records.row(settings, latest)
                folder.add(row, records.device_rows(settings, latest))
                scalars.add(row, latest.score)
                display.evaluation(latest)
            if due:
                checkpoints.save(snapshot, latest)
        if (reached := int(snapshot.state.round)) < settings.rounds:
            raise signals.Interrupted(signals.asked() or signal.SIGTERM, _kept(settings, folder, reached))
        if first:
            message_bytes = built.algorithm.message_bytes(built.problem)
            folder.add_links(accounting.by_link(snapshot.messages, message_bytes, built.problem.network))
            summary = records.summary(built, latest, display.seconds_compile, folder.rows())
            folder.summarize(summary)
    finally:
        display.close()
        clock.enter("drawing")
        if first and (folder.path / "metrics.csv").exists():
            _draw(folder)
        scalars.close(folder.path.glob("*.png"))
        clock.move(display.seconds_compile, "evaluating", "compiling")
        clock.move(display.seconds_train, "evaluating", "training")
        if first and not summary:
            console.account(clock.seconds())
    if summary:
        summary["seconds"] = clock.seconds()
        folder.summarize(summary)
        console.conclude(built, latest, summary)
        print(f"\nwritten to {folder.path}")


def _kept(settings: Settings, folder: RunFolder, reached: int) -> str:
    """Describe what remains of a run that is interrupted in round `reached`."""
    path = shlex.quote(str(folder.path))
    if not settings.checkpoint_every:
        return f"what was written is kept in {path}, but there is no checkpoint without --checkpoint_every"
    return f"continue from round {reached:,} with --resume --output_dir={path}"


def _draw(folder: RunFolder) -> None:
    """Draw the figures, after all results are written."""
    path = shlex.quote(str(folder.path))
    for name, flag in (("learning_curves.png", ""), ("network.png", "--network ")):
        figure = folder.path / name
        command = f"python scripts/plots.py {flag}{shlex.quote(str(figure))} {path}"
        with optional("train.py", name, f"all numbers are in {str(folder.path)!r}, and {command} draws it"):
            from ddjax.experiments.plots import plot, plot_network  # slow to import

            plot_network(figure, folder.path) if flag else plot(figure, [folder.path])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with the arguments of the process, or with `argv`, and return its exit code."""
    summary = "Train a network of simulated devices: python scripts/train.py --name=value …"
    clock = Clock(_PHASES, process_age() if argv is None else 0.0)
    return run(partial(train, clock=clock), fields(Settings), summary, argv)
