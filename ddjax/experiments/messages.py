"""Descriptions of the messages that devices exchange in a run."""

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
            yield f"message    {_bytes(count)} {text}: {_content(built, way, kind, drawn)}; {beside(count, model)}"


def _bytes(count: int) -> str:
    return f"{count:,} byte{'s' * (count != 1)}" + (f" ({size(count)})" if count >= 1000 else "")


def _content(built: Experiment, way: str, kind: str, drawn: int) -> str:
    """Describe the content of a message of this kind, as the algorithm and its mixing declare it."""
    entry, settings = algorithm(built.settings), resolve(built.settings)
    mixing = MIXERS.parse(settings.mixing).entry
    mixed = bool(entry.mixes) and kind in mixing.contents and (kind == "value" or kind not in entry.contents)
    outputs = built.facts["outputs"]
    classes = built.facts["task"] == "classification"
    words = {
        "batch": f"{drawn:,}",
        "reference": f"{len(built.problem.reference):,}",
        "outputs": f"{outputs:,}",
        "decisions": f"soft decisions of {outputs:,} classes" if classes else "predictions",
        "logits": f"logits of {outputs:,} classes" if classes else "predictions",
    }
    own = {name: text.format(**words) for name, text in entry.contents.items()}
    if not mixed:
        return own.get(kind, kind)
    text = mixing.contents[kind].format(value=own.get("value", "value"))
    compressor = settings.compressor or mixing.usual.get(entry.mixes, {}).get("compressor", "")
    compressed = compressor not in ("", "identity") and way != "down"
    return text + (f", compressed by {compressor}" if compressed else "")


def beside(count: int, model: int) -> str:
    """Compare the size of a message with the size of the largest model."""
    ratio = float(f"{count / model:.2g}")
    if ratio == 1:
        return f"as large as the largest model, {size(model)}"
    if ratio > 1:
        return f"{ratio:,.12g} times the largest model, {size(model)}"
    if ratio >= 0.1 or not count:
        return f"{ratio:g} of the largest model, {size(model)}"
    return f"1/{model / count:,.0f} of the largest model, {size(model)}"
