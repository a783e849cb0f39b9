"""Lines that a run prints at its start and at its end."""

from collections.abc import Mapping
from typing import Any

import jax

from ddjax.data.labels import listed
from ddjax.experiments import picked, records
from ddjax.experiments.experiment import Experiment
from ddjax.experiments.inputs import device_groups
from ddjax.experiments.messages import message_lines
from ddjax.experiments.units import common_unit, size
from ddjax.experiments.usage import algorithm, used
from ddjax.learning import TASKS
from ddjax.models import view_range
from ddjax.simulation import Evaluation
from ddjax.types import working_dtype


def describe(built: Experiment) -> None:
    """Print a description of the experiment in a few lines."""
    settings, problem = built.settings, built.problem
    sizes = built.population.parameter_counts()
    names = [group.label for group in device_groups(settings)]
    devices = ", ".join(
        f"{group.size} × {name} ({count:,} parameters)"
        for group, name, count in zip(built.population.groups, names, sizes, strict=True)
    )
    backend = jax.default_backend().upper()
    print(f"{settings.algorithm} on {settings.dataset}, {settings.rounds:,} rounds, on a {backend}")
    print(f"  devices    {devices}")
    for line in data_lines(built):
        print(f"  {line}")
    print(f"  training   {settings.optimizer}, learning rate {built.learning_rate:g}" + _reference(built))
    print(f"  forms      {_forms(built)}")
    if built.algorithm.message_bytes(problem).peer:
        network = built.topology
        gap = network.spectral_gap
        print(
            f"  graph      {network.name}, {network.directed_edges:,.6g} directed links, "
            f"spectral gap {'unknown' if gap is None else format(gap, '.3g')}, mixing weights {network.weights}"
        )
        if network.note:
            print(f"  edge file  {network.note}")
    if "mixing" in used(settings):
        print(f"  mixing     {settings.mixing}")
    for line in message_lines(built, _reference_batch(built)):
        print(f"  {line}")


def _forms(built: Experiment) -> str:
    """Describe the forms of execution that were picked, and the accelerators for which they were picked."""
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
    """Return lines that describe how ddjax understood the data: task, inputs, scales, examples and notes."""
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
    known += ", with labels, on which devices are pretrained" if reference["labels"] else ""
    lines.append(
        f"reference  from {reference['source']}{known}: {size(reference['bytes_per_device'])} on each device, "
        f"{size(reference['bytes_to_distribute'])} to distribute"
    )
    if same := facts["duplicates"]:
        kind = examples["evaluated_on"]
        lines.append(f"note       {same:,} of the {examples['test']:,} {kind} examples are training examples too")
    return lines + [f"note       {note}" for note in facts["notes"]]


def _held_out(examples: dict[str, Any]) -> str:
    """Describe the examples that no device holds: test examples and validation examples."""
    if examples["evaluated_on"] == "validation":
        return f"{examples['test']:,} validation; the test set is not used"
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
        return "standardized: an error of 1 is one standard deviation"
    return f"standardized: an error of 1 is one standard deviation ({scaling['scale'][0]:.4g})"


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
        done = "standardized by column" + (f" ({ranged} by their range)" if ranged else "")
    if not columns:
        return [f"inputs     {shape} numbers ({inputs['dtype']}), {done}"]
    kinds = {kind: [column for column in columns if column["kind"] == kind] for kind in ("number", "category")}
    lines = []
    for kind, found in kinds.items():
        if found:
            number, held = f"{len(found)} column{'s' * (len(found) > 1)}", "numbers" if kind == "number" else "texts"
            lines.append(f"inputs     {number} of {held}: {listed([column['name'] for column in found])}")
    lines.append(f"           {shape} numbers from these columns, {done}")
    if missing := sum(column["missing"] for column in columns):
        lines.append(
            f"missing    {missing:,} values: a column's median replaces missing numbers; a missing text has no category"
        )
    for column in columns:
        if column["kind"] == "ignored":
            lines.append(f"ignored    {column['name']}" + ("" if column["why"] == "asked" else f": {column['why']}"))
    return lines


def _views(facts: dict[str, Any], views: int) -> list[str]:
    """Return a line per view that lists the columns that its devices see; no lines if there is only one view."""
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
    """Describe how many reference examples are drawn per round; an empty text if the algorithm draws none."""
    settings = built.settings
    if "reference_batch_size" not in used(settings):
        return ""
    there, drawn = len(built.problem.reference), _reference_batch(built)
    each = round(settings.rounds * drawn / there)
    return f"; {drawn:,} of the {there:,} reference examples per round; each is drawn in about {each:,} rounds"


def _reference_batch(built: Experiment) -> int:
    """Return `b`, the number of reference examples per round."""
    there = len(built.problem.reference)
    return min(built.settings.reference_batch_size or there, there)


def conclude(built: Experiment, last: Evaluation, summary: dict) -> None:
    """Print the table at the end of a run.

    Args:
      built: the experiment.
      last: last evaluation of the run.
      summary: content of `summary.json`.
    """
    settings, task = built.settings, TASKS[last.metric]
    scores = {last.metric: last.score}
    scores |= {f"  {name}": own for name, own in records.by_model(settings, last.score).items()}
    width = max(14, *(len(name) + 1 for name in scores))
    print(f"\n{'':{width}}{'mean':>9}{'worst':>9}{'best':>9}{'std':>9}")
    for name, score in scores.items():
        figures = (getattr(score, kind)() for kind in ("mean", task.worst, task.best, "std"))
        print(f"{name:{width}}" + "".join(f"{records.shown(last.metric, figure):>9}" for figure in figures))
    ensemble = "soft decision" if last.metric == "accuracy" else "prediction"
    sent = {"per device": summary["bytes_sent_per_device"], "in all": summary["bytes_sent_total"]}
    if summary["bytes_sent_server"]:
        sent["of it by the server"] = summary["bytes_sent_server"]
    targets = summary["target_accuracy"]
    unit = common_unit([*sent.values(), *(met["bytes_sent_per_device"] for met in targets.values() if met)])
    rows = [
        ("ensemble", records.shown(last.metric, last.ensemble_score), f"{last.metric} of the devices' mean {ensemble}"),
        ("disagreement", f"{last.disagreement:.3g}", f"mean squared distance from the mean {ensemble}"),
    ]
    for note, count in sent.items():
        rows.append(("sent" if note == "per device" else "", size(count, unit), note))
    for target, met in targets.items():
        reached = "not reached"
        if met:
            reached = f"reached in round {met['round']:,}, {size(met['bytes_sent_per_device'], unit)} sent per device"
        rows.append(("target", target, reached))
    for name, figure, note in rows:
        print(f"{name:{width}}{figure:>9}   {note}")
    account(summary["seconds"], width)


def account(seconds: Mapping[str, float], width: int = 14) -> None:
    """Print where the wall time went, in tenths of seconds that add up to the printed total.

    Args:
      seconds: seconds of each phase and their `total` (see `clock.Clock.seconds`).
      width: width of the first column.
    """
    tenths = {name: round(10 * value) for name, value in seconds.items() if name != "total"}
    total = f"{sum(tenths.values()) / 10:.1f} s"
    print(f"{'time':{width}}{total:>9}   " + ", ".join(f"{value / 10:.1f} {name}" for name, value in tenths.items()))
