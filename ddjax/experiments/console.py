"""What a run says about itself on the console, at its start and at its end."""

from typing import Any

import jax
import numpy as np

from ddjax.data.labels import listed
from ddjax.experiments import picked, records
from ddjax.experiments.experiment import Experiment
from ddjax.experiments.inputs import device_groups
from ddjax.experiments.usage import algorithm, used
from ddjax.learning import TASKS
from ddjax.models import view_range
from ddjax.simulation import Evaluation
from ddjax.types import working_dtype


def describe(built: Experiment) -> None:
    """Says in a few lines what is being run."""
    settings, problem = built.settings, built.problem
    sizes = built.population.parameter_counts()
    names = [group.label for group in device_groups(settings)]
    devices = ", ".join(
        f"{group.size} × {name} ({size:,} parameters)"
        for group, name, size in zip(built.population.groups, names, sizes, strict=True)
    )
    print(f"{settings.algorithm} on {settings.dataset}, {settings.rounds:,} rounds, {jax.default_backend()}")
    print(f"  devices    {devices}")
    for line in data_lines(built):
        print(f"  {line}")
    print(f"  training   {settings.optimizer}, learning rate {built.learning_rate:g}" + _reference(built))
    print(f"  forms      {_forms(built)}")
    messages = built.algorithm.message_bytes(problem)
    if messages.peer:
        network = built.topology
        gap = network.spectral_gap
        print(
            f"  graph      {network.name}, {network.directed_edges:,.6g} directed links, "
            f"spectral gap {'unknown' if gap is None else format(gap, '.3g')}, weights {network.weights}"
        )
        if network.note:
            print(f"  edge file  {network.note}")
    weights = working_dtype().itemsize * max(sizes)
    for way, text in (("peer", "to a neighbour"), ("up", "to the server"), ("down", "from the server")):
        for kind, size in getattr(messages, way).items():
            print(f"  message    {size:,} bytes {text}: {kind}; largest model {weights:,} ({size / weights:.3g}×)")


def _forms(built: Experiment) -> str:
    """Which forms of execution were picked, and for which accelerators."""
    settings, simulation = built.settings, built.simulation
    asked = settings.micro_batch, settings.convolution
    models = [
        (given.model, picked.model_form(simulation, given.model, group.size, group.chunk, *asked))
        for given, group in zip(device_groups(settings), built.population.groups, strict=True)
    ]
    mixes, messages = algorithm(settings).mixes, None
    if built.algorithm.message_bytes(built.problem).peer and mixes == "parameters":
        messages = simulation.shapes.state.devices[0].params
    elif built.algorithm.message_bytes(built.problem).peer and mixes:
        shape = settings.devices, _reference_batch(built), built.facts["outputs"]
        messages = jax.ShapeDtypeStruct(shape, working_dtype())
    return picked.describe(simulation, models, messages)["forms_picked"]


def data_lines(built: Experiment) -> list[str]:
    """What was understood of the data: task, inputs, what was standardized, what devices hold, what is to be known."""
    facts = built.facts
    lines = [_task(facts), *_inputs(facts), *_views(facts, built.settings.feature_views)]
    examples = facts["examples"]
    least, most = examples["private_least"], examples["private_most"]
    lines.append(
        f"examples   {f'{least:,} to {most:,}' if least < most else f'{most:,}'} private per device "
        f"({examples['partition']} partition), {examples['reference']:,} reference, {_held_out(examples)}"
    )
    reference = facts["reference"]
    known = "" if reference["known"] == examples["reference"] else f", {reference['known']:,} known to each device"
    known += ", with its labels, which devices are pretrained on" if reference["labels"] else ""
    lines.append(
        f"reference  from {reference['source']}{known}: {reference['bytes_per_device']:,} bytes on each device, "
        f"{reference['bytes_to_distribute']:,} to distribute"
    )
    if same := facts["duplicates"]:
        kind = examples["evaluated_on"]
        lines.append(f"note       {same:,} of the {examples['test']:,} {kind} examples are training examples too")
    return lines + [f"note       {note}" for note in facts["notes"]]


def _held_out(examples: dict[str, Any]) -> str:
    """What no device holds: the examples to test on, and those to choose settings by."""
    if examples["evaluated_on"] == "validation":
        return f"{examples['test']:,} validation; the test set is not opened"
    kept = f"{examples['validation']:,} validation, not used here, " if examples["validation"] else ""
    return f"{kept}{examples['test']:,} test"


def _task(facts: dict[str, Any]) -> str:
    if facts["task"] == "regression":
        targets = facts["standardized"]["targets"]
        count = facts["outputs"]
        scale = "taken as they are" if targets["how"] == "none" else _by_deviation(targets)
        return f"task       regression, {'1 number' if count == 1 else f'{count} numbers'} to predict, {scale}"
    return f"task       classification, {facts['outputs']} classes: {listed(facts['classes'])}"


def _by_deviation(scaling: dict[str, Any]) -> str:
    if len(scaling["scale"]) > 1:
        return "standardized: an error of 1 is one deviation"
    return f"standardized: an error of 1 is one deviation, {scaling['scale'][0]:.4g}"


def _inputs(facts: dict[str, Any]) -> list[str]:
    inputs, scaling, columns = facts["inputs"], facts["standardized"]["inputs"], facts["columns"]
    shape = "×".join(map(str, inputs["shape"]))
    if inputs["tokens"]:
        return [f"inputs     {shape} token ids"]
    if scaling["how"] == "none":
        done = "taken as they are"
    elif scaling["how"] == "whole":
        done = f"standardized as a whole: mean {scaling['offset']:.4g}, deviation {scaling['scale']:.4g}"
    else:
        ranged = scaling["kinds"].count("range")
        done = "standardized by column" + (f", {ranged} of them by range" if ranged else "")
    if not columns:
        return [f"inputs     {shape} numbers ({inputs['dtype']}), {done}"]
    kinds = {kind: [column for column in columns if column["kind"] == kind] for kind in ("number", "category")}
    lines = []
    for kind, found in kinds.items():
        if found:
            number, held = f"{len(found)} column{'s' * (len(found) > 1)}", "numbers" if kind == "number" else "texts"
            lines.append(f"inputs     {number} of {held}: {listed([column['name'] for column in found])}")
    lines.append(f"           {shape} numbers of these, {done}")
    if missing := sum(column["missing"] for column in columns):
        lines.append(f"missing    {missing:,} values: the median stands for a number, no category for a text")
    for column in columns:
        if column["kind"] == "ignored":
            lines.append(f"ignored    {column['name']}" + ("" if column["why"] == "asked" else f": {column['why']}"))
    return lines


def _views(facts: dict[str, Any], views: int) -> list[str]:
    """Which columns the devices of each view see, where there are several."""
    shape, names = tuple(facts["inputs"]["shape"]), []
    for column in facts["columns"]:
        if column["kind"] == "number":
            names.append(column["name"])
        names += [f"{column['name']}={text}" for text in column["categories"]]
    lines = []
    for view in range(views if views > 1 else 0):
        begin, end = view_range(shape, view, views)
        seen = listed(names[begin:end]) if len(names) == shape[-1] else f"columns {begin + 1} to {end} of {shape[-1]}"
        lines.append(f"view {view + 1:<6}{seen}")
    return lines


def _reference(built: Experiment) -> str:
    """What a round draws of the reference set, if anything."""
    settings = built.settings
    if "reference_batch_size" not in used(settings):
        return ""
    size, drawn = len(built.problem.reference), _reference_batch(built)
    each = round(settings.rounds * drawn / size)
    return f"; {drawn:,} of the {size:,} reference examples per round, each in about {each:,} rounds"


def _reference_batch(built: Experiment) -> int:
    """`b`, reference examples of a round."""
    size = len(built.problem.reference)
    return min(built.settings.reference_batch_size or size, size)


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
    for name, own in records.by_model(settings, last.score).items():
        line(f"  {name}", own)
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
