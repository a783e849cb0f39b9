"""Runs the cells of a sweep in this process, side by side, a lane an accelerator."""

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
    """The accelerators of this process.

    Args:
      settings: those of execution.

    Raises:
      InputError: settings that are wrong, or not for this backend.
    """

    def __init__(self, settings: Settings):
        execution.start(settings)
        self._accelerators = jax.local_devices()

    def count(self) -> int:
        """How many cells run at a time."""
        return len(self._accelerators)

    def environment(self) -> dict[str, Any]:
        """Versions and backend."""
        return records.environment()

    def peak(self) -> float:
        """Operations a second of a matrix product."""
        return estimates.peak(self._accelerators[0])

    def measure(self, cells: Sequence[Cell]) -> Iterator[estimates.Estimate]:
        """What each of the cells will take; see `estimates.measure`."""
        return (estimates.measure(cell, self._accelerators[0]) for cell in cells)

    def work(self, programs: Sequence[Program], store: Store, display: Display) -> None:
        """Runs all cells, a lane an accelerator, and collects now and then."""
        # Each accelerator has memory of its own, and on a CPU all lanes share the host's.
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
                display.close()


def lane(accelerator: jax.Device, queue: Queue, store: Store, display: Display) -> None:
    """Takes cell after cell and runs it on one accelerator; cells of one program in a row compile nothing anew."""
    mesh, last = sharding.mesh([accelerator]), None
    simulation: Simulation | None = None
    with jax.default_device(accelerator):
        while taken := queue.take(last):
            program, cell = taken
            try:
                like = simulation if program is last else None
                result, simulation = _run(program, cell, mesh, like, queue, store, display)
                last = program
                display.end(cell, result, program.seconds)
            finally:
                queue.done(program)


def _run(
    program: Program,
    cell: Cell,
    mesh: jax.sharding.Mesh,
    like: Simulation | None,
    queue: Queue,
    store: Store,
    display: Display,
) -> tuple[str, Simulation | None]:
    """Runs and stores a cell; what there is to say of it, and the compiled simulation."""
    if store.holds(cell):
        return "done by another process", like

    def progress(now: Progress) -> None:
        queue.check()
        display.round(cell, now.round, program.seconds)

    with contextlib.closing(store.scalars(cell)) as scalars:
        outcome, simulation = cells.run(cell.settings, mesh, like, progress, scalars.add)
    return store.keep(cell, outcome), simulation
