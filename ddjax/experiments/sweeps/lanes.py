"""Runs the cells of a sweep side by side, a lane an accelerator."""

import collections
import json
import math
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

import jax
from tqdm import tqdm

import ddjax
from ddjax import sharding
from ddjax.errors import InputError
from ddjax.experiments import build, execution, records
from ddjax.experiments.sweeps.plan import Cell
from ddjax.experiments.sweeps.store import Store
from ddjax.simulation import memory
from ddjax.simulation.engine import Progress

_COLLECT_EVERY = 60.0  # seconds between two tables while cells finish


class Program:
    """Cells that one compiled program can run, and what they will take.

    Attributes:
      cells: those left to do.
      memory: bytes of one of them at the peak of a round.
      seconds: estimate of one of them, in one place.
    """

    def __init__(self, cells: Sequence[Cell], memory: int, seconds: float):
        self.cells = collections.deque(cells)
        self.memory, self.seconds = memory, seconds


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
    shutil.rmtree(store.path / "tensorboard" / cell.name, ignore_errors=True)  # of a start that was killed
    scalars = records.Scalars(store.path / "tensorboard" / cell.name if given.tensorboard else None)

    def progress(now: Progress) -> None:
        nonlocal compiling
        queue.check()
        compiling = now.seconds_compile
        display.round(cell, now.round, program.seconds)

    try:
        with jax.default_matmul_precision(execution.matmul_precision(given)):
            built = build.build(given, mesh, like)
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


def work(accelerators: Sequence[jax.Device], programs: Sequence[Program], store: Store, display: Display) -> None:
    """Runs all cells, a lane an accelerator, and collects now and then."""
    # Each accelerator has memory of its own, and on a CPU all lanes share the host's.
    queue = Queue(programs, memory.available() if jax.default_backend() == "cpu" else math.inf)
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
