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

import dataclasses
import datetime
import json
import multiprocessing
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from ddjax.errors import InputError
from ddjax.experiments.benchmarks.measuring import measure
from ddjax.experiments.benchmarks.settings import BenchmarkSettings, benchmark_fields, cases
from ddjax.experiments.files import replace
from ddjax.experiments.flags import Given, run
from ddjax.experiments.settings import Settings

_WHERE = ("host_devices", "coordinator_address", "num_processes", "process_id")

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


def benchmark(given: Given) -> None:
    """Measures what the command line asks for."""
    settings, where = given.take(BenchmarkSettings), Settings(**{name: given.values[name] for name in _WHERE})
    todo = cases(settings)
    output = Path(settings.output or f"runs/benchmark-{datetime.datetime.now():%Y%m%d-%H%M%S}.json").expanduser()
    if output.exists():
        raise InputError(f"output {str(output)!r} exists; name a new file")
    output.parent.mkdir(parents=True, exist_ok=True)
    print(_line(COLUMNS))
    rows: list[dict] = []
    for number, case in enumerate(todo, 1):
        print(f"{number} of {len(todo)}: {case.work}, {case.devices} × {case.models}", file=sys.stderr)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
            try:
                there = dataclasses.replace(where, precision=case.precision)
                rows.append(fresh.submit(measure, settings, there, case).result())
            except BrokenProcessPool:
                raise MemoryError("the process that measured was killed, perhaps for memory; take less") from None
        print(_line(text(rows[-1]) for _, text in COLUMNS.values()), flush=True)
        replace(output, json.dumps(rows, indent=2) + "\n")
    print(
        "\nMedians (smallest–largest). GFLOP/s and GB/s: useful ones, and as a share of this machine's measured peak;"
        "\nMB: peak memory; parts: a distillation round against its parts; torch: how many times longer PyTorch takes."
        f"\nwritten to {output}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with the arguments of the process, or with `argv`; returns its exit code."""
    summary = "Measures simulated devices: python scripts/benchmark.py --name=value …"
    return run(benchmark, benchmark_fields(), summary, argv)
