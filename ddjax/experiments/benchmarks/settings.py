"""Settings of a benchmark, and the rows that they describe."""

import dataclasses
import importlib.util
import itertools
import math
from collections.abc import Collection
from functools import partial

from ddjax.errors import InputError, suggest
from ddjax.experiments.benchmarks.targets import TARGETS, Target, target
from ddjax.experiments.benchmarks.workloads import PRIVATE_EXAMPLES, REFERENCE_SIZE, WORK, Case
from ddjax.experiments.fields import Field, fields, setting
from ddjax.experiments.settings import Settings
from ddjax.models import MODELS, parse_models
from ddjax.networks import TOPOLOGIES

_lists = partial(setting, section="Work to measure or plan (comma-separated lists)")
_how = partial(setting, section="Measurement")
WHERE = ("host_devices", "coordinator_address", "num_processes", "process_id")
_planned = partial(setting, section="Planning for other accelerators")
_MEASURED = ("baseline", "repeats", "seconds", *WHERE)  # only for measurements on this machine
_LISTS = ("convolution", "precision")  # single values in other commands


@dataclasses.dataclass(frozen=True)
class BenchmarkSettings:
    """Settings of a benchmark; those of execution are in `Settings`."""

    work: str = _lists("local_sgd,distillation,dsgd", f"Work to measure or plan: {', '.join(WORK)}.")
    models: str = _lists("linear,mlp", "Models, or groups with counts, as in linear:8+mlp:8.", registry=MODELS)
    devices: str = _lists("64", "Numbers of devices.")
    batch_size: str = _lists("16", "Private examples per step.")
    topology: str = _lists("ring", "Fixed graphs, as in train.py.")
    convolution: str = _lists("", fields(Settings)["convolution"].help)
    precision: str = _lists(
        "float32", "Precision of the products: float32, tf32 or bfloat16, with the consensus in float32."
    )

    reference_batch_size: int = _how(64, f"Reference examples per distillation round, fewer than {REFERENCE_SIZE}.")
    examples_per_device: int = _how(PRIVATE_EXAMPLES, "Private examples per device.", minimum=1)
    test_examples: int = _how(10_000, "Test examples per evaluation.", minimum=1)
    baseline: str = _how(
        "", "torch compares with a PyTorch loop; needs pip install -e '.[torch]'. Default: no comparison."
    )
    repeats: int = _how(7, "Number of repeats of each row.")
    seconds: float = _how(0.3, "Approximate duration of one repeat, in seconds.")
    output: str = _how("", "JSON file to write, which must not exist yet; default runs/benchmark-<time>.json.")

    target: str = _planned(
        "", "Accelerators for which to compile, separated by commas; nothing is run.", registry=TARGETS
    )
    save: str = _planned("", "JSON file in which to store the rows for a later --compare; an older file is replaced.")
    compare: str = _planned("", "JSON file of earlier rows to compare with; the exit code is 1 if any row got worse.")
    tolerance: float = _planned(0.1, "Fraction by which a figure may grow before it counts as worse.", minimum=0.0)

    device_chunk: int = _how(0, fields(Settings)["device_chunk"].help, minimum=0)
    micro_batch: int = _how(0, fields(Settings)["micro_batch"].help, minimum=0)
    mixing_product: str = _how("", fields(Settings)["mixing_product"].help)


def benchmark_fields() -> dict[str, Field]:
    """Return the flags of a benchmark: its own, and those of execution."""
    own = fields(BenchmarkSettings)
    where = {n: f for n, f in fields(Settings).items() if f.section == "Execution" and n not in own}
    return own | where


def cases(settings: BenchmarkSettings) -> list[Case]:
    """Return the rows that the settings describe.

    Raises:
      InputError: a flag is wrong, or flags conflict.
    """
    for name, field in fields(settings).items():
        field.check(getattr(settings, name))
    if not 0 < settings.reference_batch_size < REFERENCE_SIZE:
        raise InputError(
            f"reference_batch_size must be between 1 and {REFERENCE_SIZE - 1}, got {settings.reference_batch_size}"
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
        if work == "evaluation" and settings.baseline:
            raise InputError("--baseline=torch cannot run the work 'evaluation'; leave out one of them")
        if TOPOLOGIES.parse(graph).entry.whole:
            raise InputError(f"topology {graph!r} changes from round to round; use one that does not")
        if precision == "float64":
            raise InputError("precision float64 is not benchmarked; use float32, tf32 or bfloat16")
        case = Case(
            work,
            spec,
            devices,
            batch_size,
            topology=graph if work in ("distillation", "dsgd") else None,
            reference_batch_size=settings.reference_batch_size if work == "distillation" else None,
            device_chunk=settings.device_chunk,
            micro_batch=settings.micro_batch,
            convolution=convolution
            if any(MODELS[name].convolutional for name, _ in parse_models(spec, devices))
            else "",
            mixing_product=settings.mixing_product,
            precision=precision,
            examples_per_device=settings.examples_per_device,
            test_examples=settings.test_examples if work == "evaluation" else None,
        )
        if len(case.groups) > 1 and work == "dsgd":
            raise InputError(f"dsgd shares parameters, so all devices need the same model, got {spec!r}")
        case.graph()
        found[case] = None  # a case appears once, even if lists have values that its work does not use
    return list(found)


def targets(settings: BenchmarkSettings, given: Collection[str]) -> list[Target]:
    """Return the accelerators for which to compile; empty if the benchmark measures on this machine.

    Args:
      settings: settings of the benchmark.
      given: names of the flags on the command line.

    Raises:
      InputError: a target is unknown, its compiler is not installed, or flags conflict.
    """
    if not settings.target:
        if "target" in given:
            raise InputError("--target is empty; name accelerators, as in --target=v5e:4, or leave the flag out")
        if unused := sorted({"save", "compare", "tolerance"} & set(given)):
            raise InputError(f"--{unused[0]} is only used with --target; give both, or leave it out")
        return []
    if unused := sorted(set(_MEASURED) & set(given)):
        raise InputError(f"--target={settings.target} only compiles, so --{unused[0]} is not used; leave it out")
    found = [target(spec) for spec in dict.fromkeys(settings.target.split(","))]
    tpus = [each.name for each in found if each.platform == "tpu"]
    if tpus and "tf32" in settings.precision.split(","):
        raise InputError(f"precision tf32 is planned only for GPUs, but {tpus[0]} is a TPU; use float32 or bfloat16")
    return found


def _counts(settings: BenchmarkSettings, name: str) -> list[int]:
    given = getattr(settings, name)
    if not all(part.isdecimal() and 0 < int(part) < 2**31 for part in given.split(",")):
        raise InputError(f"--{name} takes positive whole numbers separated by commas, got {given!r}")
    return [int(part) for part in given.split(",")]
