"""Runs every combination of comma lists of flags, unattended, and leaves one table.

    python scripts/sweep.py --algorithm=local,dsgd,distillation --devices=8,32,128 --seeds=5 --sweep_dir=runs/sizes

Leaves in --sweep_dir: results.csv and results.parquet (a row per cell and evaluation, a column per flag), timings.csv,
failures.csv, and a folder per cell. The same command goes on where it was stopped. `report.py` makes figures of it.
"""

import hashlib
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

from ddjax import sharding
from ddjax.errors import InputError
from ddjax.experiments import console, execution, records
from ddjax.experiments.experiment import Experiment, build
from ddjax.experiments.fields import fields
from ddjax.experiments.flags import Given, run
from ddjax.experiments.scalars import Scalars
from ddjax.experiments.settings import Settings
from ddjax.experiments.sweeps import plan
from ddjax.experiments.sweeps.lanes import work
from ddjax.experiments.sweeps.plan import LISTED, WHOLE, Cell, SweepSettings
from ddjax.experiments.sweeps.progress import Display, duration
from ddjax.experiments.sweeps.queue import Program
from ddjax.experiments.sweeps.store import Store
from ddjax.experiments.usage import check_used, used
from ddjax.simulation import memory
from ddjax.simulation.operations import products

# For the estimate: seconds that a program takes to compile and a round to start, and what part of the machine's peak in
# products rounds reach.
_COMPILE, _ROUND, _SHARE = 4.0, 3e-4, 0.25


def plan_program(cells: Sequence[Cell], peak: float, store: Store) -> tuple[Program, Experiment]:
    """Cells of one compiled program, with an estimate of what they take, and the first of them, built.

    Args:
      cells: of the program.
      peak: of products on one accelerator.
      store: where they will be stored.

    Raises:
      InputError: the first of them cannot be built, needs more memory than there is, or reads a file that has changed.
    """
    cell = cells[0]
    try:
        built = build(cell.settings, sharding.mesh(jax.local_devices()[:1]))
        records.memory_needed(built.simulation)
    except InputError as error:
        raise InputError(f"cell {cell.label}: {error}") from None
    store.check_data(built.facts)
    seconds = operations(built) / (_SHARE * peak) + _ROUND * cell.settings.rounds + _COMPILE / len(cells)
    return Program(cells, memory.estimate(built.simulation)[1], seconds), built


def operations(built: Experiment) -> float:
    """Estimates the operations of a run: three forward passes a training example, one an evaluated one, per device."""
    population, problem, settings = built.population, built.problem, built.settings
    devices = jax.eval_shape(population.init, jax.random.key(0))
    one = jax.ShapeDtypeStruct((1, *problem.x.shape[1:]), problem.x.dtype)
    forward = sum(products(jax.make_jaxpr(population.predict)(devices, one)))
    held = problem.private_indices.shape[1]
    seen = population.steps_per_round(held) * (population.batch_size or held)
    if "reference_batch_size" in used(settings):
        seen += settings.reference_batch_size or problem.reference.shape[0]
    evaluated = len(problem.x_test) + len(problem.reference)
    return forward * (3 * seen * settings.rounds + evaluated * (settings.rounds // settings.eval_every + 1))


def peak() -> float:
    """Operations a second of a matrix product, on one accelerator."""
    with jax.default_device(jax.local_devices()[0]):
        matrix = jnp.ones((1024, 1024))
        multiply = jax.jit(jnp.matmul)
        jax.block_until_ready(multiply(matrix, matrix))
        start = time.perf_counter()
        jax.block_until_ready(multiply(matrix, matrix))
        return 2 * 1024**3 / (time.perf_counter() - start)


def folder(given: str, cells: Sequence[Cell]) -> Path:
    """`--sweep_dir`, or a name that the same cells get again."""
    names = "".join(sorted(cell.name for cell in cells))
    try:
        return Path(given or f"runs/sweep-{hashlib.sha256(names.encode()).hexdigest()[:8]}").expanduser()
    except RuntimeError as error:
        raise InputError(f"sweep_dir {given!r}: {error}") from None


def check(cells: Sequence[Cell]) -> None:
    """Checks the settings of every cell; raises `InputError` with the cell's label."""
    for cell in cells:
        try:
            cell.settings.check()
            check_used(cell.settings)
        except InputError as error:
            raise InputError(f"cell {cell.label}: {error}") from None


def group_programs(cells: Sequence[Cell], store: Store) -> list[Program]:
    """The compiled programs that cells need, with estimates of what they take; says what it understood of the data."""
    alike: dict[tuple, list[Cell]] = {}
    for cell in cells:
        alike.setdefault(cell.program, []).append(cell)
    speed = peak() if cells else 0
    programs, said = [], set()
    for group in alike.values():
        program, built = plan_program(group, speed, store)
        programs.append(program)
        lines = console.data_lines(built)
        if (built.settings.dataset, *lines[:2]) not in said:  # not again for each number of devices
            said.add((built.settings.dataset, *lines[:2]))
            print("\n".join([built.settings.dataset, *(f"  {line}" for line in lines)]), flush=True)
    return programs


def planned(given: Given, settings: SweepSettings) -> list[Cell]:
    """The cells that the command line describes."""
    whole = {name: given.values[name] for name in WHOLE}
    lists = {name: given.values[name] for name in LISTED if name in given.present}
    return plan.cells(lists, whole, settings)


def sweep(given: Given) -> int:
    """Runs what the command line describes; returns the exit code."""
    settings = given.take(SweepSettings)
    cells = planned(given, settings)
    precision = plan.process_precision(cells)
    number, count = plan.parse_shard(settings.shard)
    Scalars(Path() if given.values["tensorboard"] else None)  # is it installed?
    check(cells)
    store = Store(folder(settings.sweep_dir, cells), cells)
    cells = store.cells
    mine = cells[number::count]
    todo = [cell for cell in mine if not store.holds(cell)]
    shard = f", {len(mine)} of them in shard {settings.shard}" if count > 1 else ""
    print(f"{len(cells)} cells{shard}; {len(mine) - len(todo)} are done", flush=True)
    execution.start(Settings(host_devices=given.values["host_devices"], precision=precision))
    compiled = group_programs(todo, store)
    accelerators = jax.local_devices()[: len(todo)]
    seconds = sum(program.seconds * len(program.cells) for program in compiled)
    if todo:
        print(
            f"{len(todo)} to do, with {len(compiled)} compiled programs, {len(accelerators)} cells at a time; "
            f"about {duration(seconds / len(accelerators))}, as a first guess",
            flush=True,
        )
    store.create(shlex.join(["python", *sys.argv]))
    try:
        if todo:
            work(accelerators, compiled, store, Display(len(mine), len(mine) - len(todo), seconds))
    finally:
        failures = store.collect()
    failed = failures[failures["cell"].isin([cell.name for cell in mine])]
    there = sum(store.holds(cell) for cell in cells)
    draws = f"python scripts/report.py {shlex.quote(str(store.path))} draws them"
    print(f"{there} of {len(cells)} cells are in {store.path}; {draws}")
    if not len(failed):
        return 0
    reasons = ", ".join(f"{number} {status}" for status, number in failed["status"].value_counts().items())
    print(f"sweep.py: {reasons}; {store.path}/failures.csv says why", file=sys.stderr)
    return 3


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with the arguments of the process, or with `argv`; returns its exit code."""
    summary = "Runs every combination of comma lists of flags: python scripts/sweep.py --name=value,value …"
    kept = "cells that are done are kept, and the same command goes on"
    return run(sweep, fields(SweepSettings) | plan.list_fields(), summary, argv, kept=kept)
