"""Measures what a round costs here, or plans it for accelerators that are not here.

    python scripts/benchmark.py --work=local_sgd,distillation --models=linear,mlp --devices=512 --baseline=torch
    python scripts/benchmark.py --target=v5e:4 --work=distillation,evaluation --models=mlp --devices=4096

Prints a row for each combination of the lists and writes them all as JSON. Each is measured in a fresh process, on
random data, with the compiled loop that `train.py` runs; as many rounds as take `--seconds` are one repeat. A
*device-step* is one round of one device: one optimizer step and, with distillation and D-SGD, its mixing. The work
`evaluation` is no round, but tests all devices on `--test_examples` and on the reference set.

- `us_per_device_step`: median over the repeats, which are all in `us_per_device_step_repeats`.
- `seconds_compile`: tracing and compiling the loop over rounds; of an evaluation, together with the first one.
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

With `--target` nothing is made or run. The same programs are compiled by shape, each in a fresh process, and a row says
what the compiler made of one, for one chip and for a round or an evaluation. docs/accelerators.md says how far to trust
it.

- `fits`: whether `held_bytes` (problem and state) and `temporary_bytes` fit into `available_bytes`. Where the compiler
  refuses the program, `refusal` is what it said, and other figures are missing. `ddjax_estimate_bytes` is the peak that
  `train.py` foresees.
- `estimate_ms`: by the compiler of a TPU, without collectives, and without gathers, scatters and sorts, whose results
  have `unestimated_bytes`. There is none for GPUs: there `traffic_bytes` go through memory, which takes `floor_ms`.
- `collectives`, `collective_bytes`: how many there are, and the size of their results; by kind in `collective_kinds`.
- `kernels`: operations that are started; `sorts` of the different ones sort. On GPUs `kernels_in_graphs` of the
  `different_kernels` lie in one of `graphs` CUDA graphs, and `host_in_loop` says whether the host steps through a loop.
- `forms`, `product`, `forms_picked`: how the devices of each model are executed, how `W` is multiplied, and both in
  words.

`--save=FILE` keeps the rows, and `--compare=FILE` says which are worse than those kept; the exit code is 1 if any is.
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
    """Measures or plans what the command line asks for; returns 1 where a row got worse than in `--compare`."""
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
    print(f"written to {output}")
    if settings.save:
        replace(kept, json.dumps(rows, indent=2) + "\n")
    return _compared(rows, baseline, settings) if settings.compare else 0


def _rows(jobs: Sequence[tuple[Case, Callable[[], dict]]], columns: tables.Columns, output: Path) -> list[dict]:
    """Does each job in a fresh process, prints its row, and writes all so far."""
    print(tables.line(columns, columns), flush=True)
    rows: list[dict] = []
    for number, (case, job) in enumerate(jobs, 1):
        print(f"{number} of {len(jobs)}: {case.work}, {case.devices} × {case.models}", file=sys.stderr)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
            try:
                rows.append(fresh.submit(job).result())
            except BrokenProcessPool:
                raise MemoryError("the process of a row was killed, perhaps for memory; take less") from None
        print(tables.show(rows[-1], columns), flush=True)
        replace(output, json.dumps(rows, indent=2) + "\n")
    return rows


def _compared(rows: Sequence[dict], baseline: Sequence[dict], settings: BenchmarkSettings) -> int:
    """Prints the rows that got worse; returns 1 if any did."""
    found = [comparison.worse(row, baseline, settings.tolerance) for row in rows]
    lines = [line for line in found if line]
    print(*(lines or [f"no row is worse than in {settings.compare}"]), sep="\n")
    return bool(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with the arguments of the process, or with `argv`; returns its exit code."""
    summary = "Measures simulated devices, or plans them for accelerators: python scripts/benchmark.py --name=value …"
    return run(benchmark, benchmark_fields(), summary, argv)
