"""Measurement of one row of a benchmark."""

import re
import resource
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ddjax.errors import InputError
from ddjax.experiments import execution
from ddjax.experiments.benchmarks import workloads
from ddjax.experiments.benchmarks.settings import BenchmarkSettings
from ddjax.experiments.benchmarks.workloads import Case
from ddjax.experiments.settings import Settings
from ddjax.simulation import Simulation
from ddjax.types import Algorithm, Problem

_PAUSE = 0.3  # seconds before each run, because idle threads of PyTorch spin for a while
PARTS = ("local_sgd", "reference_pass")  # the parts of a distillation round


class Simulated:
    """Compiled simulation that can run any number of rounds.

    Args:
      algorithm: algorithm to simulate.
      problem: problem on which the algorithm is simulated.
      evaluates: whether to repeat evaluations instead of rounds.
    """

    def __init__(self, algorithm: Algorithm, problem: Problem, evaluates: bool = False):
        self.simulation = Simulation(algorithm, problem)
        self._key, self._done = jax.random.key(0), 0
        self._state = self.simulation.init(self._key)
        self.run = self._evaluate if evaluates else self._advance
        self.seconds_compile = self.run(1 if evaluates else 0)

    def _evaluate(self, times: int) -> float:
        """Run `times` evaluations, and return the seconds that they take."""
        jax.block_until_ready(self._state)
        start = time.perf_counter()
        for _ in range(times):
            self.simulation.measure(self._state)  # waits for the result, because `measure` reads it
        return time.perf_counter() - start

    def _advance(self, rounds: int) -> float:
        """Run this many rounds, and return the seconds that they take."""
        self._done += rounds
        state, totals = jax.block_until_ready((self._state, self.simulation.zeros()))
        start = time.perf_counter()
        self._state, _ = jax.block_until_ready(self.simulation.advance(self._key, state, totals, self._done))
        return time.perf_counter() - start


def torch_run(case: Case, problem: Problem) -> Callable[[int], float]:
    """Build a PyTorch loop that does the same work on the same hardware; return a function from rounds to seconds."""
    import torch  # an optional extra

    from ddjax.experiments.benchmarks import torch_baseline

    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("JAX runs on a GPU that this PyTorch cannot use; install PyTorch with CUDA")
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


def calibrate(run: Callable[[int], float], seconds: float) -> int:
    """Find the number of rounds that take `seconds`; the calls also warm up the loop."""
    run(1)
    rounds = 1
    while (elapsed := run(rounds)) < seconds / 4:
        rounds *= 2
    return max(1, round(rounds * seconds / elapsed))


def peaks() -> tuple[float, float]:
    """Measure operations per second of a large matrix product and bytes per second of a large copy, on all devices."""
    devices = jax.devices()
    side, length = (2048, 2**26) if devices[0].platform == "cpu" else (8192, 2**28)
    each = NamedSharding(Mesh(devices, ("devices",)), PartitionSpec("devices"))
    matrices = jax.device_put(np.random.default_rng(0).random((len(devices), side, side), np.float32), each)
    multiply = jax.jit(lambda a: a @ a)
    # Copy into memory that is allocated already: fresh pages cost several times as much as the copy.
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
    """Return the peak memory so far in bytes: of the arrays on accelerators, or of this process on a CPU."""
    on_accelerators = [device.memory_stats() for device in jax.local_devices()]
    if all(on_accelerators):
        return sum(stats["peak_bytes_in_use"] for stats in on_accelerators)
    if (status := Path("/proc/self/status")).exists():  # getrusage also counts the parent process
        return 1024 * int(re.findall(r"VmHWM:\s+(\d+)", status.read_text())[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def measure(settings: BenchmarkSettings, where: Settings, case: Case) -> dict:
    """Measure one row of the JSON; this function runs in a fresh process.

    Args:
      settings: settings of the benchmark.
      where: settings of execution in the process.
      case: work of the row.
    """
    execution.start(where)
    data = workloads.problem(case)
    ours = Simulated(workloads.algorithm(case.work, case), data, case.work == "evaluation")
    runs: dict[str, tuple[Callable, int]] = {"ddjax": (ours.run, calibrate(ours.run, settings.seconds))}
    memory = peak_memory()
    others = {"torch": torch_run(case, data)} if settings.baseline else {}
    if case.work == "distillation":
        others |= {part: Simulated(workloads.algorithm(part, case), data).run for part in PARTS}
    runs |= {name: (run, calibrate(run, settings.seconds)) for name, run in others.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(settings.repeats):
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
    examples = case.batch_size + (case.reference_batch_size or 0)
    if case.test_examples:
        examples = case.test_examples + workloads.REFERENCE_SIZE
    peak_flops, peak_traffic = peaks()
    return {
        **case._asdict(),
        **workloads.picked_forms(ours.simulation, case),
        "seconds_compile": ours.seconds_compile,
        "us_per_device_step": us,
        "us_per_device_step_repeats": times["ddjax"],
        "rounds_per_repeat": runs["ddjax"][1],
        "examples_per_second": 1e6 * examples / us,
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
