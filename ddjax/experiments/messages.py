"""Descriptions of the messages of a run."""

from collections.abc import Iterator

from ddjax.experiments.experiment import Experiment
from ddjax.experiments.units import size
from ddjax.experiments.usage import algorithm, resolve
from ddjax.mixing import MIXERS
from ddjax.types import Traffic, working_dtype

_WAYS = {"peer": "to a neighbour", "up": "to the server", "down": "from the server"}


def message_lines(built: Experiment, drawn: int) -> Iterator[str]:
    """Describe each kind of message in one line: bytes, direction, content, and size relative to the largest model.

    Args:
      built: the experiment.
      drawn: number of reference examples per round.
    """
    messages: Traffic = built.algorithm.message_bytes(built.problem)
    model = working_dtype().itemsize * max(built.population.parameter_counts())
    for way, text in _WAYS.items():
        for kind, count in getattr(messages, way).items():
            yield f"message    {_bytes(count)} {text}: {_content(built, kind, drawn)}; {_beside(count, model)}"


def _bytes(count: int) -> str:
    return f"{count:,} bytes" + (f" ({size(count)})" if count >= 1000 else "")


def _content(built: Experiment, kind: str, drawn: int) -> str:
    """Describe the content of a message of this kind."""
    entry, settings = algorithm(built.settings), resolve(built.settings)
    outputs = built.facts["outputs"]
    if entry.mixes == "soft_decisions":
        each = f"of {outputs} classes" if built.facts["task"] == "classification" else ""
        noun = "soft decisions" if each else "predictions"
        held = f"{drawn:,} {noun} {each}".strip()
    elif entry.mixes == "parameters":
        held = "the model's parameters"
    else:
        return kind
    plain = {"value": held, "mean": f"the mean of {held}"}
    usual = MIXERS.parse(settings.mixing).entry.usual.get(entry.mixes, {})
    compressor = settings.compressor or usual.get("compressor", "")
    text = plain.get(kind, f"{kind} of {held}")
    return text + (f", compressed by {compressor}" if compressor and kind != "mean" else "")


def _beside(count: int, model: int) -> str:
    """Compare the size of a message with that of the largest model."""
    ratio = count / model
    if ratio == 1:
        return f"as much as the largest model, {size(model)}"
    if ratio > 2 / 3:
        return f"{ratio:.3g} times the largest model, {size(model)}"
    return f"1/{1 / ratio:,.0f} of the largest model, {size(model)}"
