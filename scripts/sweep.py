"""Runs every combination of comma lists of flags, unattended, and leaves one table.

    python scripts/sweep.py --algorithm=local,dsgd,distillation --devices=8,32,128 --seeds=5 --sweep_dir=runs/sizes

Leaves in --sweep_dir: results.csv and results.parquet (a row per cell and evaluation, a column per flag), timings.csv,
failures.csv, and a folder per cell. The same command goes on where it was stopped. `report.py` makes figures of it.
"""

import collections
import hashlib
import json
import math
import shlex
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

import execution
import experiment
import jax
import jax.numpy as jnp
import options
import plan
import records
import workloads
from absl import flags
from plan import SECTIONS, Cell
from store import Store
from tqdm import tqdm

import ddjax
from ddjax import memory, sharding
from ddjax.simulate import Progress
from ddjax.types import InputError

FLAGS = flags.FlagValues()
options.define(SECTIONS, FLAGS)

# For the estimate: seconds that a program takes to compile and a round to start, and what part of the machine's peak in
# products rounds reach.
_COMPILE, _ROUND, _SHARE = 4.0, 3e-4, 0.25
_COLLECT_EVERY = 30.0  # seconds between two tables while cells finish


class Program:
    """Cells that one compiled program can run, and what they will take.

    Attributes:
      cells: those left to do.
      memory: bytes at the peak of a round.
      seconds: estimate of one cell, in one place.

    Raises:
      InputError: the first cell cannot be built, or needs more memory than there is.
    """

    def __init__(self, cells: Sequence[Cell], peak: float):
        cell = cells[0]
        try:
            execution.check_backend(cell.given)
            built = experiment.build(cell.given, sharding.mesh(jax.local_devices()[:1]))
            records.memory_needed(built.simulation)
        except InputError as error:
            raise InputError(f"cell {cell.label}: {error}") from None
        self.cells = collections.deque(cells)
        self.memory = memory.estimate(built.simulation)[1]
        training = operations(built.learners, built.problem, cell.given) / (_SHARE * peak)
        self.seconds = training + _ROUND * cell.given.rounds + _COMPILE / len(cells)


class Queue:
    """What is left to do, shared by the lanes.

    Args:
      programs: with their cells.
      budget: bytes that the cells that run at once may take together, though one alone always may run.
    """

    def __init__(self, programs: Sequence[Program], budget: float):
        self._programs, self._budget = programs, budget
        self._running: list[Program] = []
        self._changed = threading.Condition()
        self._stopped = False

    def take(self, last: Program | None) -> tuple[Program, Cell] | None:
        """The next cell, `None` if there is none: of the program that a lane has compiled, else of the one with most
        left to do, first of those that no other lane runs. Waits for memory."""
        with self._changed:
            while not self._stopped and (left := [program for program in self._programs if program.cells]):
                taken = sum(program.memory for program in self._running)
                fitting = [p for p in left if not self._running or taken + p.memory <= self._budget]
                if fitting:
                    best = max(fitting, key=lambda p: (p is last, p not in self._running, p.seconds * len(p.cells)))
                    self._running.append(best)
                    return best, best.cells.popleft()
                self._changed.wait()
            return None

    def done(self, program: Program) -> None:
        """A cell of the program has ended."""
        with self._changed:
            self._running.remove(program)
            self._changed.notify_all()

    def stop(self) -> None:
        """No more cells, and those that run end soon."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def check(self) -> None:
        """Raises `Stopped` where the sweep ends early."""
        if self._stopped:
            raise Stopped


class Stopped(Exception):
    """The sweep ends early: interrupted, or its folder cannot be written to."""


class Display:
    """Live progress on stderr: on a terminal a bar, else a line a cell.

    Args:
      total: cells of the sweep, or of this shard.
      done: those done before.
      seconds: estimate of the others.
    """

    def __init__(self, total: int, done: int, seconds: float):
        self._lock, self._start = threading.Lock(), time.monotonic()
        self._total, self._done, self._seconds, self._ended = total, done, seconds, 0.0
        self._running: dict[str, tuple[str, float]] = {}  # name → what it does, estimated seconds of that
        layout = "{desc} {percentage:3.0f}%|{bar}| {elapsed}{postfix}"
        self._bar = tqdm(
            total=seconds, bar_format=layout, disable=not sys.stderr.isatty(), dynamic_ncols=True, desc=self._cells()
        )

    def _cells(self) -> str:
        return f"{self._done}/{self._total} cells"

    def round(self, cell: Cell, number: int, seconds: float) -> None:
        """A cell is in round `number`; all its rounds are estimated at `seconds`."""
        with self._lock:
            rounds = cell.given.rounds
            self._running[cell.name] = f"{cell.label}: {number}/{rounds}", seconds * number / max(rounds, 1)
            self._draw()

    def end(self, cell: Cell, result: str, seconds: float) -> None:
        """A cell has ended."""
        with self._lock:
            self._running.pop(cell.name, None)
            self._done, self._ended = self._done + 1, self._ended + seconds
            self._draw()
            if self._bar.disable:
                print(f"{self._cells()}: {cell.label}: {result}; {self._left()} left", file=sys.stderr, flush=True)

    def _draw(self) -> None:
        now = "; ".join(text for text, _ in self._running.values())
        self._bar.n = min(self._work(), self._seconds)
        self._bar.set_description_str(self._cells(), refresh=False)
        self._bar.set_postfix_str(f"{self._left()} left ({now})")

    def _left(self) -> str:
        work = self._work()
        spent = time.monotonic() - self._start
        return duration(spent * max(self._seconds - work, 0) / work) if work else "unknown time"

    def _work(self) -> float:
        return self._ended + sum(seconds for _, seconds in self._running.values())

    def close(self) -> None:
        """Leaves the last state standing."""
        self._bar.close()


def duration(seconds: float) -> str:
    """As a person says it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def lane(accelerator: jax.Device, queue: Queue, store: Store, display: Display) -> None:
    """Takes cell after cell and runs it on one accelerator; cells of one program in a row compile nothing anew."""
    mesh, last, simulation = sharding.mesh([accelerator]), None, None
    with jax.default_device(accelerator):
        while taken := queue.take(last):
            program, cell = taken
            try:
                result, simulation = run(
                    program, cell, mesh, simulation if program is last else None, queue, store, display
                )
                last = program
                display.end(cell, result, program.seconds)
            finally:
                queue.done(program)


def run(
    program: Program,
    cell: Cell,
    mesh: jax.sharding.Mesh,
    like: ddjax.Simulation | None,
    queue: Queue,
    store: Store,
    display: Display,
) -> tuple[str, ddjax.Simulation | None]:
    """Runs and stores a cell; what there is to say of it, and the compiled simulation."""
    if store.holds(cell):
        return "done by another process", like
    given, rows, compiling = cell.given, [], 0.0
    scalars = records.Scalars(store.path / "tensorboard" / cell.name if given.tensorboard else None)

    def progress(now: Progress) -> None:
        nonlocal compiling
        queue.check()
        compiling = now.seconds_compile
        display.round(cell, now.round, program.seconds)

    try:
        with jax.default_matmul_precision(execution.matmul_precision(given)):
            built = experiment.build(given, mesh, like)
            records.memory_needed(built.simulation)
            for _, latest in ddjax.evaluations(
                built.simulation,
                key=jax.random.key(given.seed),
                rounds=given.rounds,
                eval_every=given.eval_every,
                progress=progress,
            ):
                rows.append(records.row(latest))
                scalars.add(rows[-1])
        summary = {"status": "done", **records.summary(given, built, latest, compiling, rows)}
        result = records.brief(latest)
    except Stopped:
        raise
    except Exception as error:  # the rest of the sweep goes on
        reason = " ".join(str(error).split()) or type(error).__name__
        if not (rows and isinstance(error, ddjax.NonFiniteError)):
            store.fail(cell, reason, "" if isinstance(error, InputError) else traceback.format_exc())
            return f"failed: {reason}", None
        summary = {"status": "diverged", "reason": reason}
        result = f"diverged: {reason}"
    finally:
        scalars.close()
    texts = {"config.json": records.config(given), "summary.json": summary}
    store.put(
        cell,
        {name: json.dumps(text, indent=2) + "\n" for name, text in texts.items()}
        | {"metrics.csv": records.table(rows)},
    )
    return result, built.simulation


def operations(learners: ddjax.Learners, problem: ddjax.Problem, given: flags.FlagValues) -> float:
    """About how many a run takes: three forward passes a training example, one an evaluated one, of every device."""
    devices = jax.eval_shape(learners.init, jax.random.key(0))
    one = jax.ShapeDtypeStruct((1, *problem.x.shape[1:]), problem.x.dtype)
    forward = sum(workloads.products(jax.make_jaxpr(learners.predict)(devices, one)))
    held = problem.private.shape[1]
    seen = learners.steps_per_round(held) * (learners.batch_size or held)
    if "reference_batch_size" not in options.unused(given):
        seen += given.reference_batch_size or problem.reference.shape[0]
    evaluated = len(problem.x_test) + len(problem.reference)
    return forward * (3 * seen * given.rounds + evaluated * (given.rounds // given.eval_every + 1))


def peak() -> float:
    """Operations a second of a matrix product, in one place."""
    with jax.default_device(jax.local_devices()[0]):
        matrix = jnp.ones((1024, 1024))
        multiply = jax.jit(jnp.matmul)
        jax.block_until_ready(multiply(matrix, matrix))
        start = time.perf_counter()
        jax.block_until_ready(multiply(matrix, matrix))
        return 2 * 1024**3 / (time.perf_counter() - start)


def folder(cells: Sequence[Cell]) -> Path:
    """`--sweep_dir`, or a name that the same cells get again."""
    names = "".join(sorted(cell.name for cell in cells))
    try:
        return Path(FLAGS.sweep_dir or f"runs/sweep-{hashlib.sha256(names.encode()).hexdigest()[:8]}").expanduser()
    except RuntimeError as error:
        raise InputError(f"sweep_dir {FLAGS.sweep_dir!r}: {error}") from None


def sweep() -> int:
    """Runs what the flags describe; the exit code."""
    cells = plan.cells(FLAGS)
    precision = _process_precision(cells)
    number, count = plan.shard(FLAGS)
    records.Scalars(Path() if FLAGS.tensorboard else None)  # is it installed?
    store = Store(folder(cells), cells)
    mine = cells[number::count]
    todo = [cell for cell in mine if not store.holds(cell)]
    shard = f", {len(mine)} of them in shard {FLAGS.shard}" if count > 1 else ""
    print(f"{len(cells)} cells{shard}; {len(mine) - len(todo)} are done", flush=True)
    execution.start(options.parse([f"--host_devices={FLAGS.host_devices}", f"--precision={precision}"]))
    alike: dict[tuple, list[Cell]] = {}
    for cell in todo:
        alike.setdefault(cell.program, []).append(cell)
    speed = peak() if todo else 0
    programs = [Program(group, speed) for group in alike.values()]
    accelerators = jax.local_devices()[: len(todo)]
    if todo:
        seconds = sum(program.seconds * len(program.cells) for program in programs)
        print(
            f"{len(todo)} to do, with {len(programs)} compiled programs, {len(accelerators)} cells at a time; "
            f"about {duration(seconds / len(accelerators))}, as a first guess",
            flush=True,
        )
    store.create(shlex.join(["python", *sys.argv]))
    if todo:
        work(accelerators, Queue(programs, _budget()), store, Display(len(mine), len(mine) - len(todo), seconds))
    failures = store.collect()
    failed = failures[failures["cell"].isin([cell.name for cell in mine])]
    there = sum(store.holds(cell) for cell in cells)
    print(f"{there} of {len(cells)} cells are in {store.path}; python scripts/report.py {store.path} draws them")
    if not len(failed):
        return 0
    reasons = ", ".join(f"{number} {status}" for status, number in failed["status"].value_counts().items())
    print(f"sweep.py: {reasons}; {store.path}/failures.csv says why", file=sys.stderr)
    return 3


def work(accelerators: Sequence[jax.Device], queue: Queue, store: Store, display: Display) -> None:
    """Runs all cells, a lane an accelerator, and collects now and then."""
    with ThreadPoolExecutor(len(accelerators)) as lanes:
        waiting = {lanes.submit(lane, accelerator, queue, store, display) for accelerator in accelerators}
        try:
            while waiting:
                done, waiting = wait(waiting, _COLLECT_EVERY, FIRST_EXCEPTION)
                for future in done:
                    future.result()
                store.collect()
        finally:
            queue.stop()
            display.close()


def _process_precision(cells: Sequence[Cell]) -> str:
    """float64, which JAX has for a whole process, or float32, beside which the others are set cell by cell."""
    precisions = {cell.given.precision for cell in cells}
    if "float64" not in precisions:
        return "float32"
    if len(precisions) > 1:
        raise InputError(f"precision float64 needs a sweep of its own, got {', '.join(sorted(precisions))}")
    return "float64"


def _budget() -> float:
    """Bytes that cells which run at once may take; each accelerator has memory of its own."""
    return memory.available() if jax.default_backend() == "cpu" else math.inf


if __name__ == "__main__":
    summary = "Runs every combination of comma lists of flags: python scripts/sweep.py --name=value,value …"
    sys.exit(options.main(sweep, summary, sections=SECTIONS, flag_values=FLAGS))
