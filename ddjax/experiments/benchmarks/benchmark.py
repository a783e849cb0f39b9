"""Measure the time and memory of a round on this machine, or predict them for other accelerators.

    python scripts/benchmark.py --work=local_sgd,distillation --models=linear,mlp --devices=512 --baseline=torch
    python scripts/benchmark.py --target=v5e:4 --work=distillation,evaluation --models=mlp --devices=4096

The command prints a row for each combination of the lists and writes all rows as JSON. It measures each row in a fresh
process, on random data, with the compiled loop of `train.py`. One repeat runs as many rounds as fit into `--seconds`. A
*device-step* is one round of one device: one optimizer step and, with distillation and D-SGD, the device's share of the
mixing. The work `evaluation` is not a round; it evaluates all devices on `--test_examples` examples and the
reference set.

- `us_per_device_step`: median over the repeats, in microseconds; `us_per_device_step_repeats` lists all repeats.
- `seconds_compile`: time to trace and compile the loop over rounds; for evaluations, time of the first evaluation,
  including compilation.
- `examples_per_second`: examples that all devices process; a reference example counts once per device.
- `flops_per_second`, `bytes_per_second`: useful operations and least traffic, as `workloads.device_step` defines them.
- `peak_flops_per_second`, `peak_bytes_per_second`: rates of a large matrix product and of a large copy (bytes read plus
  bytes written), measured after the work, in the same process, on all of JAX's devices. Work that fits into cache may
  exceed the peak of the copy.
- `peak_memory_bytes`: peak memory of the process up to the first repeat, including libraries and compilation; on a GPU,
  peak memory of the arrays.
- `ratio_to_parts`: time of a distillation round divided by the time of its parts: the local step of `local_sgd`, and
  the forward and backward pass over a reference minibatch, without drawing, mixing or an optimizer. The parts are
  measured after each repeat. The figure is the median; `ratios_to_parts` lists all ratios.
- `ratio_to_torch`: time of the loop in `torch_baseline.py` divided by the time of the same work in ddjax. Repeats
  alternate, and each pair gives a ratio. The figure is the median; `ratios_to_torch` lists all ratios.

With `--target`, nothing is allocated or run. The command compiles the same programs from shapes, each in a fresh
process. A row describes the compiled program on one chip, for one round or one evaluation. docs/accelerators.md says
how far to trust the rows.

- `fits`: whether `held_bytes` (problem and state) and `temporary_bytes` fit into `available_bytes`. If the compiler
  refuses the program, `refusal` holds the compiler's message, and other figures are missing. `ddjax_estimate_bytes` is
  the peak that `train.py` predicts.
- `estimate_ms`: time that a TPU's compiler estimates, without collectives, gathers, scatters and sorts.
  `unestimated_bytes` is the size of the results of the gathers, scatters and sorts. For GPUs, there is no estimate, but
  a lower bound, `floor_ms`: the time that the memory needs to transfer `traffic_bytes`.
- `collectives`, `collective_bytes`: number of collectives and size of their results; `collective_kinds` counts the
  collectives of each kind.
- `kernels`: number of operations that are started; `sorts` is the number of different sorts. On GPUs, `graphs` is the
  number of CUDA graphs, which contain `kernels_in_graphs` of the `different_kernels`. `host_in_loop` says whether the
  host steps through a loop.
- `forms`, `product`, `forms_picked`: how the devices of each model are executed, how `W` is multiplied, and a sentence
  that describes both.

`--save=FILE` stores the rows. `--compare=FILE` lists the rows that are worse than the stored ones; the exit code is 1
if there are any.
"""

import dataclasses
import datetime
import json
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

from ddjax.errors import InputError
from ddjax.experiments.benchmarks import comparison, tables
from ddjax.experiments.benchmarks.measuring import measure
from ddjax.experiments.benchmarks.planning import plan
from ddjax.experiments.benchmarks.settings import WHERE, BenchmarkSettings, benchmark_fields, cases, targets
from ddjax.experiments.benchmarks.workloads import Case
from ddjax.experiments.files import replace
from ddjax.experiments.flags import Given, run
from ddjax.experiments.settings import Settings


def benchmark(given: Given) -> int:
    """Measure or plan the rows that the command line describes; return 1 if a row is worse than in `--compare`."""
    settings = given.take(BenchmarkSettings)
    wanted, todo = targets(settings, given.present), cases(settings)
    planned = [(target, case) for target in wanted for case in todo]
    baseline = comparison.load(settings.compare, planned) if settings.compare else []
    output = Path(settings.output or f"runs/benchmark-{datetime.datetime.now():%Y%m%d-%H%M%S}.json").expanduser()
    kept = Path(settings.save).expanduser() if settings.save else output
    if output.exists():
        raise InputError(f"output {str(output)!r} exists; name a new file")
    if kept.is_dir():
        raise InputError(f"--save={settings.save} is a folder; name a file")
    for path in (output, kept):
        path.parent.mkdir(parents=True, exist_ok=True)
    if wanted:
        rows = _rows([(case, partial(plan, target, case)) for target, case in planned], tables.PLANNED, output)
        legend = tables.PLANNED_LEGEND
    else:
        where = Settings(**{name: given.values[name] for name in WHERE})
        there = {case: dataclasses.replace(where, precision=case.precision) for case in todo}
        rows = _rows([(case, partial(measure, settings, there[case], case)) for case in todo], tables.MEASURED, output)
        legend = tables.MEASURED_LEGEND
    print("", *dict.fromkeys(line for row in rows for line in tables.remarks(row)), "", legend, sep="\n")
    print(f"results written to {output}")
    if settings.save:
        replace(kept, json.dumps(rows, indent=2) + "\n")
    return _compared(rows, baseline, settings) if settings.compare else 0


def _rows(jobs: Sequence[tuple[Case, Callable[[], dict]]], columns: tables.Columns, output: Path) -> list[dict]:
    """Run each job in a fresh process, print its row, and write all rows so far."""
    print(tables.line(columns, columns), flush=True)
    rows: list[dict] = []
    for number, (case, job) in enumerate(jobs, 1):
        print(f"{number} of {len(jobs)}: {case.work}, {case.devices} × {case.models}", file=sys.stderr)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
            try:
                rows.append(fresh.submit(job).result())
            except BrokenProcessPool:
                raise MemoryError(
                    "the process of a row was killed, perhaps for lack of memory; use fewer devices or a smaller model"
                ) from None
        print(tables.show(rows[-1], columns), flush=True)
        replace(output, json.dumps(rows, indent=2) + "\n")
    return rows


def _compared(rows: Sequence[dict], baseline: Sequence[dict], settings: BenchmarkSettings) -> int:
    """Print the rows that got worse; return 1 if any did."""
    found = [comparison.worse(row, baseline, settings.tolerance) for row in rows]
    lines = [line for line in found if line]
    print(*(lines or [f"no row is worse than in {settings.compare}"]), sep="\n")
    return bool(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with the arguments of the process, or with `argv`; return its exit code."""
    summary = "Measure or predict the time and memory of a simulation: python scripts/benchmark.py --name=value …"
    return run(benchmark, benchmark_fields(), summary, argv)
