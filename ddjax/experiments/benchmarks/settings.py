"""What a benchmark can be told, and the rows that it asks for."""

import dataclasses
import importlib.util
import itertools
import math
from functools import partial

from ddjax.errors import InputError, suggest
from ddjax.experiments.benchmarks.workloads import REFERENCE_SIZE, WORK, Case
from ddjax.experiments.fields import Field, fields, setting
from ddjax.experiments.settings import Settings
from ddjax.models import MODELS, parse_models
from ddjax.networks import TOPOLOGIES

_lists = partial(setting, section="What is measured (each a comma list)")
_how = partial(setting, section="How")
_LISTS = ("convolution", "precision")  # single values in other commands


@dataclasses.dataclass(frozen=True)
class BenchmarkSettings:
    """The settings of a benchmark; those of execution are in `Settings`."""

    work: str = _lists("local_sgd,distillation,dsgd", f"{', '.join(WORK)}.")
    models: str = _lists("linear,mlp", "Models, or groups with counts as in linear:8+mlp:8.", registry=MODELS)
    devices: str = _lists("64", "Numbers of devices.")
    batch_size: str = _lists("16", "Private examples of a step.")
    topology: str = _lists("ring", "Fixed graphs, as train.py takes them.")
    convolution: str = _lists("", fields(Settings)["convolution"].help)
    precision: str = _lists("float32", fields(Settings)["precision"].help)

    reference_batch_size: int = _how(64, f"Reference examples of a distillation round, below {REFERENCE_SIZE}.")
    baseline: str = _how("", "torch to measure against a PyTorch loop: pip install -e '.[torch]'.")
    repeats: int = _how(7, "Repeats of each row.")
    seconds: float = _how(0.3, "About how long one repeat takes.")
    output: str = _how("", "JSON file to write, a new one; default runs/benchmark-<time>.json.")

    device_chunk: int = _how(0, fields(Settings)["device_chunk"].help, minimum=0)
    micro_batch: int = _how(0, fields(Settings)["micro_batch"].help, minimum=0)
    mixing_product: str = _how("", fields(Settings)["mixing_product"].help)


def benchmark_fields() -> dict[str, Field]:
    """The flags of a benchmark: its own, and those that say where it runs."""
    own = fields(BenchmarkSettings)
    where = {n: f for n, f in fields(Settings).items() if f.section == "Execution" and n not in own}
    return own | where


def cases(settings: BenchmarkSettings) -> list[Case]:
    """The rows that are asked for.

    Raises:
      InputError: flags that are wrong, or do not go together.
    """
    if not 0 < settings.reference_batch_size < REFERENCE_SIZE:
        raise InputError(
            f"reference_batch_size must lie in 1 … {REFERENCE_SIZE - 1}, got {settings.reference_batch_size}"
        )
    if settings.repeats < 1 or not 0 < settings.seconds < math.inf:
        raise InputError(f"repeats and seconds must be positive, got {settings.repeats} and {settings.seconds:g}")
    if settings.baseline not in ("", "torch"):
        raise InputError(f"unknown baseline {settings.baseline!r}; accepted: torch")
    if settings.baseline and not importlib.util.find_spec("torch"):
        raise InputError("--baseline=torch needs PyTorch, which is not installed: pip install -e '.[torch]'")
    works, specs, graphs, convolutions, precisions = (
        getattr(settings, name).split(",") for name in ("work", "models", "topology", *_LISTS)
    )
    found: dict[Case, None] = {}
    for work, spec, devices, batch_size, graph, convolution, precision in itertools.product(
        works, specs, _counts(settings, "devices"), _counts(settings, "batch_size"), graphs, convolutions, precisions
    ):
        if work not in WORK:
            raise suggest("work", work, WORK)
        if TOPOLOGIES.parse(graph).entry.whole:
            raise InputError(f"a fixed topology is needed, and {graph!r} changes")
        if precision == "float64":
            raise InputError("precision float64 is for accuracy and not measured; take float32, tf32 or bfloat16")
        case = Case(
            work,
            spec,
            devices,
            batch_size,
            topology=None if work == "local_sgd" else graph,
            reference_batch_size=settings.reference_batch_size if work == "distillation" else None,
            device_chunk=settings.device_chunk,
            micro_batch=settings.micro_batch,
            convolution=convolution
            if any(MODELS[name].convolutional for name, _ in parse_models(spec, devices))
            else "",
            mixing_product=settings.mixing_product,
            precision=precision,
        )
        if len(case.groups) > 1 and work == "dsgd":
            raise InputError(f"dsgd shares parameters, so all devices need one architecture, got {spec!r}")
        case.network()
        found[case] = None  # once, where a list does not matter to it
    return list(found)


def _counts(settings: BenchmarkSettings, name: str) -> list[int]:
    given = getattr(settings, name)
    if not all(part.isdecimal() and 0 < int(part) < 2**31 for part in given.split(",")):
        raise InputError(f"{name} takes positive whole numbers joined by commas, got {given!r}")
    return [int(part) for part in given.split(",")]
