"""What a run says about itself on the console, at its start and at its end."""

import jax
import numpy as np

from ddjax.experiments import records
from ddjax.experiments.experiment import Experiment
from ddjax.learning import TASKS, infer_task
from ddjax.models import parse_models
from ddjax.simulation import Evaluation
from ddjax.types import working_dtype


def describe(built: Experiment) -> None:
    """Says in a few lines what is being run."""
    settings, problem, count = built.settings, built.problem, np.asarray(built.problem.private_counts)
    sizes = built.population.parameter_counts()
    names = [name for name, _ in parse_models(settings.models, settings.devices)]
    devices = ", ".join(
        f"{group.size} × {name} ({size:,} parameters)"
        for group, name, size in zip(built.population.groups, names, sizes, strict=True)
    )
    print(f"{settings.algorithm} on {settings.dataset}, {settings.rounds:,} rounds, {jax.default_backend()}")
    print(f"  devices    {devices}")
    partition = settings.partition or infer_task(problem.y).partition
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
    weights = working_dtype().itemsize * max(sizes)
    for way, text in (("peer", "to a neighbour"), ("up", "to the server"), ("down", "from the server")):
        for kind, size in getattr(messages, way).items():
            print(f"  message    {size:,} bytes {text}: {kind}; largest model {weights:,} ({size / weights:.3g}×)")


def conclude(built: Experiment, last: Evaluation, summary: dict) -> None:
    """Prints the table at the end.

    Args:
      built: the experiment.
      last: its last evaluation.
      summary: what `summary.json` holds.
    """
    settings = built.settings
    print(f"\n{'':12}{'mean':>9}{'worst':>9}{'best':>9}{'std':>9}")
    task = TASKS[last.metric]

    def line(name: str, score: np.ndarray) -> None:
        figures = (getattr(score, name)() for name in ("mean", task.worst, task.best, "std"))
        print(f"{name:12}" + "".join(f"{records.shown(last.metric, figure):>9}" for figure in figures))

    line(last.metric, last.score)
    start = 0
    if len(built.population.groups) > 1:
        names = parse_models(settings.models, settings.devices)
        for (name, _), group in zip(names, built.population.groups, strict=True):
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
    print(f"{'time':12}{last.seconds_train:9.1f}   s training, {summary['seconds_compile']:.1f} s compiling")
