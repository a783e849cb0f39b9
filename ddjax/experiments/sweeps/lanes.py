"""Cells of a sweep that run side by side in this process, with one lane per accelerator."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any

import jax

from ddjax import sharding
from ddjax.experiments import execution, records
from ddjax.experiments.settings import Settings
from ddjax.experiments.sweeps import cells, estimates
from ddjax.experiments.sweeps.plan import Cell
from ddjax.experiments.sweeps.progress import Display
from ddjax.experiments.sweeps.queue import Program, Queue
from ddjax.experiments.sweeps.store import COLLECT_EVERY, Store
from ddjax.simulation import Progress, Simulation, memory


class Lanes:
    """Accelerators of this process.

    Args:
      settings: settings of execution.

    Raises:
      InputError: a setting is wrong, or this backend does not support it.
    """

    longest_first = False

    def __init__(self, settings: Settings):
        execution.start(settings)
        self._accelerators = jax.local_devices()

    def count(self) -> int:
        """Return how many cells run at the same time."""
        return len(self._accelerators)

    def environment(self) -> dict[str, Any]:
        """Return the versions and the backend of this process."""
        return records.environment()

    def peak(self) -> float:
        """Measure the floating-point operations per second of a matrix product on one accelerator."""
        return estimates.peak(self._accelerators[0])

    def measure(self, cells: Sequence[Cell]) -> Iterator[estimates.Estimate]:
        """Estimate the time and memory that each cell takes (see `estimates.measure`)."""
        return (estimates.measure(cell, self._accelerators[0]) for cell in cells)

    def work(self, programs: Sequence[Program], store: Store, display: Display) -> None:
        """Run all cells, with one lane per accelerator, and collect the tables every minute."""
        # Each accelerator has its own memory, but on a CPU all lanes share the host's memory.
        queue = Queue(programs, memory.available() if jax.default_backend() == "cpu" else math.inf)
        used = self._accelerators[: sum(len(program.cells) for program in programs)]
        with ThreadPoolExecutor(len(used)) as lanes:
            waiting = {lanes.submit(lane, accelerator, queue, store, display) for accelerator in used}
            try:
                while waiting:
                    done, waiting = wait(waiting, COLLECT_EVERY, FIRST_EXCEPTION)
                    for future in done:
                        future.result()
                    store.collect()
            finally:
                queue.stop()


def lane(accelerator: jax.Device, queue: Queue, store: Store, display: Display) -> None:
    """Run cell after cell on one accelerator; consecutive cells with the same program compile it only once."""
    mesh, last = sharding.mesh([accelerator]), None
    simulation: Simulation | None = None
    with jax.default_device(accelerator):
        while taken := queue.take(last):
            program, cell = taken
            try:
                like = simulation if program is last else None
                display.begin(cell, program, fresh=like is None)
                result, trained, simulation = _run(cell, mesh, like, queue, store, display)
                last = program
                display.end(cell, result, trained)
            finally:
                queue.done(program)


def _run(
    cell: Cell,
    mesh: jax.sharding.Mesh,
    like: Simulation | None,
    queue: Queue,
    store: Store,
    display: Display,
) -> tuple[str, float | None, Simulation | None]:
    """Run and store a cell, and return its result, its seconds of training, and the compiled simulation."""
    if store.holds(cell):
        return "done by another process", None, like

    def progress(now: Progress) -> None:
        queue.check()
        display.round(cell, now.round, now.seconds_train)

    with contextlib.closing(store.scalars(cell)) as scalars:
        outcome, simulation = cells.run(cell.settings, mesh, like, progress, scalars.add)
    return store.keep(cell, outcome), outcome.trained, simulation
