"""Measures what a round costs: local SGD steps, distillation rounds and D-SGD rounds.

    python scripts/benchmark.py --work=local_sgd,distillation --models=linear,mlp --devices=512 --baseline=torch

Prints a row for each combination of the lists and writes them all as JSON. Each is measured in a fresh process, on
random data, with the compiled loop that `train.py` runs; as many rounds as take `--seconds` are one repeat. A
*device-step* is one round of one device: one optimizer step and, with distillation and D-SGD, its mixing.

- `us_per_device_step`: median over the repeats, which are all in `us_per_device_step_repeats`.
- `seconds_compile`: tracing and compiling the loop over rounds.
- `examples_per_second`: examples that went forward and backward, reference examples once a device.
- `flops_per_second`, `bytes_per_second`: of the useful work and least traffic, as `workloads.device_step` defines them.
- `peak_flops_per_second`, `peak_bytes_per_second`: of a large matrix product and a large copy (bytes read and bytes
  written), after the work, in the same process, on all of jax's devices. Work that fits in cache may exceed the latter.
- `peak_memory_bytes`: of the process up to the first repeat, with libraries and compilation; on a GPU, of its arrays.
- `ratio_to_parts`: a distillation round against the sum of its parts: the local step, as `local_sgd` takes it, and
  the forward and backward pass over a reference minibatch alone, without draw, mixing or optimizer. The parts
  are measured beside each repeat; the median, all are in `ratios_to_parts`.
- `ratio_to_torch`: how many times longer the loop of `torch_baseline.py` takes for the same work. Repeats alternate
  and each pair gives a ratio; the median, all are in `ratios_to_torch`.
"""

import datetime
import importlib.util
import itertools
import json
import math
import multiprocessing
import re
import resource
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import ddjax
from ddjax.errors import InputError, suggest
from ddjax.experiments import execution, options
from ddjax.experiments.benchmarks import workloads
from ddjax.experiments.benchmarks.workloads import REFERENCE_SIZE, WORK, Case
from ddjax.models import architectures
from ddjax.networks.graphs import GRAPHS
from ddjax.types import Algorithm, Problem

_PAUSE = 0.3  # s; PyTorch's threads go on spinning for a while when they have nothing to do
PARTS = ("local_sgd", "reference_pass")  # of distillation

_LISTS = ("convolution", "precision")  # single values in other scripts

FLAGS = flags.FlagValues()
_SECTIONS: dict[str, dict[str, tuple]] = {
    "What is measured (each a comma list)": {
        "work": ("local_sgd,distillation,dsgd", f"Of {', '.join(WORK)}."),
        "models": ("linear,mlp", f"Of {', '.join(architectures.MODELS)}, or groups with counts as in linear:8+mlp:8."),
        "devices": ("64", "Numbers of devices."),
        "batch_size": ("16", "Private examples of a step."),
        "topology": ("ring", "Fixed graphs, as train.py takes them."),
        **{name: execution.SECTION[name] for name in _LISTS},
    },
    "How": {
        "reference_batch_size": (64, f"Reference examples of a distillation round, below {REFERENCE_SIZE}."),
        "baseline": ("", "torch to measure against a PyTorch loop: pip install -e '.[torch]'."),
        "repeats": (7, "Repeats of each row."),
        "seconds": (0.3, "About how long one repeat takes."),
        "output": ("", "JSON file to write, a new one; default runs/benchmark-<time>.json."),
    },
    "Execution": {name: flag for name, flag in execution.SECTION.items() if name not in _LISTS},
}
options.define(_SECTIONS, FLAGS)


def cases() -> list[Case]:
    """What the flags ask for.

    Raises:
      InputError: flags that are wrong, or do not go together.
    """
    if not 0 < FLAGS.reference_batch_size < REFERENCE_SIZE:
        raise InputError(f"reference_batch_size must lie in 1 … {REFERENCE_SIZE - 1}, got {FLAGS.reference_batch_size}")
    if FLAGS.repeats < 1 or not 0 < FLAGS.seconds < math.inf:
        raise InputError(f"repeats and seconds must be positive, got {FLAGS.repeats} and {FLAGS.seconds:g}")
    if FLAGS.baseline not in ("", "torch"):
        raise InputError(f"unknown baseline {FLAGS.baseline!r}; accepted: torch")
    if FLAGS.baseline and not importlib.util.find_spec("torch"):
        raise InputError("--baseline=torch needs PyTorch, which is not installed: pip install -e '.[torch]'")
    works, specs, graphs, convolutions, precisions = (
        getattr(FLAGS, name).split(",") for name in ("work", "models", "topology", *_LISTS)
    )
    found: dict[Case, None] = {}
    for work, spec, devices, batch_size, graph, convolution, precision in itertools.product(
        works, specs, _counts("devices"), _counts("batch_size"), graphs, convolutions, precisions
    ):
        if work not in WORK:
            raise suggest("work", work, WORK)
        if graph.split(":")[0] not in GRAPHS:
            raise suggest("fixed topology", graph.split(":")[0], GRAPHS)
        if precision == "float64":
            raise InputError("precision float64 is for accuracy and not measured; take float32, tf32 or bfloat16")
        case = Case(
            work,
            spec,
            devices,
            batch_size,
            topology=None if work == "local_sgd" else graph,
            reference_batch_size=FLAGS.reference_batch_size if work == "distillation" else None,
            device_chunk=FLAGS.device_chunk,
            micro_batch=FLAGS.micro_batch,
            convolution=convolution if any(name in spec for name in architectures.CONVOLUTIONAL) else "",
            mixing_product=FLAGS.mixing_product,
            precision=precision,
        )
        if len(case.groups) > 1 and work == "dsgd":
            raise InputError(f"dsgd shares parameters, so all devices need one architecture, got {spec!r}")
        case.network()
        found[case] = None  # once, where a list does not matter to it
    return list(found)


def _counts(name: str) -> list[int]:
    given = getattr(FLAGS, name)
    if not all(part.isdecimal() and 0 < int(part) < 2**31 for part in given.split(",")):
        raise InputError(f"{name} takes positive whole numbers joined by commas, got {given!r}")
    return [int(part) for part in given.split(",")]


class Simulated:
    """A compiled simulation that goes on and on."""

    def __init__(self, algorithm: Algorithm, problem: Problem):
        self._simulation = ddjax.Simulation(algorithm, problem)
        self._key, self._done = jax.random.key(0), 0
        self._state = self._simulation.init(self._key)
        self.seconds_compile = self.run(0)

    def run(self, rounds: int) -> float:
        """Seconds of so many rounds."""
        self._done += rounds
        state, totals = jax.block_until_ready((self._state, self._simulation.zeros()))
        start = time.perf_counter()
        self._state, _ = jax.block_until_ready(self._simulation.advance(self._key, state, totals, self._done))
        return time.perf_counter() - start


def torch_run(case: Case, problem: Problem) -> Callable[[int], float]:
    """The same work as a PyTorch loop, where jax runs: seconds of so many rounds."""
    import torch  # an optional extra

    from ddjax.experiments.benchmarks import torch_baseline

    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("jax runs on a GPU, which this PyTorch cannot use; install one with CUDA")
    network = torch_baseline.Network(
        case.work,
        [name for name, size in case.groups for _ in range(size)],
        problem,
        case.network().matrices[0],
        workloads.CLASSES,
        batch_size=case.batch_size,
        reference_batch_size=case.reference_batch_size or 0,
        learning_rate=workloads.LEARNING_RATE,
        distillation_weight=workloads.DISTILLATION_WEIGHT,
        consensus_step_size=workloads.CONSENSUS_STEP_SIZE,
        device=device,
    )
    return network.run


def calibrate(run: Callable[[int], float]) -> int:
    """How many rounds take `--seconds`; warms up on the way."""
    run(1)
    rounds = 1
    while (elapsed := run(rounds)) < FLAGS.seconds / 4:
        rounds *= 2
    return max(1, round(rounds * FLAGS.seconds / elapsed))


def peaks() -> tuple[float, float]:
    """Operations a second of a large matrix product, and bytes a second of a large copy, on all of jax's devices."""
    devices = jax.devices()
    side, length = (2048, 2**26) if devices[0].platform == "cpu" else (8192, 2**28)
    each = NamedSharding(Mesh(devices, ("devices",)), PartitionSpec("devices"))
    matrices = jax.device_put(np.random.default_rng(0).random((len(devices), side, side), np.float32), each)
    multiply = jax.jit(lambda a: a @ a)
    # Into memory that is there already: fresh pages cost several times the copy.
    source = jax.device_put(np.ones((len(devices), length // len(devices)), np.float32), each)
    target = jax.device_put(np.zeros_like(source), each)
    copy = jax.jit(lambda source, target: source.copy(), donate_argnums=1, keep_unused=True)

    def seconds(call: Callable[[], Any]) -> float:
        jax.block_until_ready(call())
        times = []
        for _ in range(5):
            start = time.perf_counter()
            jax.block_until_ready(call())
            times.append(time.perf_counter() - start)
        return median(times)

    def copied() -> jax.Array:
        nonlocal target
        target = copy(source, target)
        return target

    return 2 * len(devices) * side**3 / seconds(lambda: multiply(matrices)), 2 * source.nbytes / seconds(copied)


def peak_memory() -> int:
    """Bytes, so far: of the accelerators' arrays, on CPU of this process."""
    on_accelerators = [device.memory_stats() for device in jax.local_devices()]
    if all(on_accelerators):
        return sum(stats["peak_bytes_in_use"] for stats in on_accelerators)
    if (status := Path("/proc/self/status")).exists():  # getrusage counts the process this one was started from
        return 1024 * int(re.findall(r"VmHWM:\s+(\d+)", status.read_text())[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def measure(argv: list[str], case: Case) -> dict:
    """A row of the JSON; called in a fresh process."""
    FLAGS(argv)
    FLAGS["precision"].value = case.precision
    execution.start(FLAGS)
    data = workloads.problem(case)
    ours = Simulated(workloads.algorithm(case.work, case), data)
    runs: dict[str, tuple[Callable, int]] = {"ddjax": (ours.run, calibrate(ours.run))}
    memory = peak_memory()
    others = {"torch": torch_run(case, data)} if FLAGS.baseline else {}
    if case.work == "distillation":
        others |= {part: Simulated(workloads.algorithm(part, case), data).run for part in PARTS}
    runs |= {name: (run, calibrate(run)) for name, run in others.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(FLAGS.repeats):
        for name, (run, rounds) in runs.items():
            time.sleep(_PAUSE)
            times[name].append(1e6 * run(rounds) / rounds / case.devices)
    us, to_torch, to_parts = median(times["ddjax"]), [], []
    if "torch" in times:
        to_torch = [theirs / own for own, theirs in zip(times["ddjax"], times["torch"], strict=True)]
    if case.work == "distillation":
        parts = [sum(pair) for pair in zip(*(times[part] for part in PARTS), strict=True)]
        to_parts = [whole / part for whole, part in zip(times["ddjax"], parts, strict=True)]
    flops, traffic = workloads.device_step(case)
    peak_flops, peak_traffic = peaks()
    return {
        **case._asdict(),
        "seconds_compile": ours.seconds_compile,
        "us_per_device_step": us,
        "us_per_device_step_repeats": times["ddjax"],
        "rounds_per_repeat": runs["ddjax"][1],
        "examples_per_second": 1e6 * (case.batch_size + (case.reference_batch_size or 0)) / us,
        "flops_per_second": 1e6 * flops / us,
        "peak_flops_per_second": peak_flops,
        "bytes_per_second": 1e6 * traffic / us,
        "peak_bytes_per_second": peak_traffic,
        "peak_memory_bytes": memory,
        "ratio_to_parts": median(to_parts) if to_parts else None,
        "ratios_to_parts": to_parts,
        "torch_us_per_device_step": median(times["torch"]) if to_torch else None,
        "ratio_to_torch": median(to_torch) if to_torch else None,
        "ratios_to_torch": to_torch,
        "accelerators": [device.device_kind for device in jax.devices()],
        "versions": {name: version(name) for name in ("jax", *(["torch"] if to_torch else []))},
    }


COLUMNS: dict[str, tuple[int, Callable[[dict], str]]] = {
    "work": (13, lambda row: row["work"]),
    "models": (9, lambda row: row["models"]),
    "N×batch": (9, lambda row: f"{row['devices']}×{row['batch_size']}"),
    "form": (18, lambda row: " ".join(filter(None, (row["topology"], row["convolution"], _precision(row))))),
    "compile": (8, lambda row: f"{row['seconds_compile']:.1f} s"),
    "µs/device-step": (21, lambda row: _spread(row["us_per_device_step"], row["us_per_device_step_repeats"])),
    "GFLOP/s": (11, lambda row: _share(row["flops_per_second"], row["peak_flops_per_second"])),
    "GB/s": (11, lambda row: _share(row["bytes_per_second"], row["peak_bytes_per_second"])),
    "MB": (6, lambda row: f"{row['peak_memory_bytes'] / 1e6:.0f}"),
    "parts": (6, lambda row: f"{row['ratio_to_parts']:.2f}" if row["ratio_to_parts"] else ""),
    "torch": (17, lambda row: _spread(row["ratio_to_torch"], row["ratios_to_torch"]) if row["ratio_to_torch"] else ""),
}


def _precision(row: dict) -> str:
    return row["precision"] if row["precision"] != "float32" else ""


def _spread(middle: float, repeats: list[float]) -> str:
    return f"{_short(middle)} ({_short(min(repeats))}–{_short(max(repeats))})"


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def _share(value: float, peak: float) -> str:
    return f"{_short(value / 1e9)} {value / peak:.0%}"


def _line(texts: Iterable[str]) -> str:
    return " ".join(f"{text:<{width - 1}}" for text, (width, _) in zip(texts, COLUMNS.values(), strict=True)).rstrip()


def benchmark() -> None:
    """Measures what the flags ask for."""
    todo = cases()
    output = Path(FLAGS.output or f"runs/benchmark-{datetime.datetime.now():%Y%m%d-%H%M%S}.json").expanduser()
    if output.exists():
        raise InputError(f"output {str(output)!r} exists; name a new file")
    output.parent.mkdir(parents=True, exist_ok=True)
    argv = ["", *FLAGS.flags_into_string().splitlines()]
    print(_line(COLUMNS))
    rows: list[dict] = []
    for number, case in enumerate(todo, 1):
        print(f"{number} of {len(todo)}: {case.work}, {case.devices} × {case.models}", file=sys.stderr)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
            try:
                rows.append(fresh.submit(measure, argv, case).result())
            except BrokenProcessPool:
                raise MemoryError("the process that measured was killed, perhaps for memory; take less") from None
        print(_line(text(rows[-1]) for _, text in COLUMNS.values()), flush=True)
        whole = output.with_name(f"{output.name}.new")
        whole.write_text(json.dumps(rows, indent=2) + "\n")
        whole.replace(output)
    print(
        "\nMedians (smallest–largest). GFLOP/s and GB/s: useful ones, and as a share of this machine's measured peak;"
        "\nMB: peak memory; parts: a distillation round against its parts; torch: how many times longer PyTorch takes."
        f"\nwritten to {output}"
    )


def main() -> int:
    """Runs the command; the exit code."""
    summary = "Measures simulated devices: python scripts/benchmark.py --name=value …"
    return options.main(benchmark, summary, sections=_SECTIONS, flag_values=FLAGS)
