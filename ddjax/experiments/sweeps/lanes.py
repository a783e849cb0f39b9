"""Runs the cells of a sweep side by side, a lane an accelerator."""

import json
import math
import shutil
import traceback
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

import jax

from ddjax import sharding
from ddjax.errors import DivergedError, InputError
from ddjax.experiments import records
from ddjax.experiments.experiment import build
from ddjax.experiments.files import csv_text
from ddjax.experiments.scalars import Scalars
from ddjax.experiments.sweeps.plan import Cell
from ddjax.experiments.sweeps.progress import Display
from ddjax.experiments.sweeps.queue import Program, Queue, Stopped
from ddjax.experiments.sweeps.store import Store
from ddjax.simulation import Progress, Simulation, memory

_COLLECT_EVERY = 60.0  # seconds between two tables while cells finish


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
    like: Simulation | None,
    queue: Queue,
    store: Store,
    display: Display,
) -> tuple[str, Simulation | None]:
    """Runs and stores a cell; what there is to say of it, and the compiled simulation."""
    if store.holds(cell):
        return "done by another process", like
    settings, rows, compiling = cell.settings, [], 0.0
    shutil.rmtree(store.path / "tensorboard" / cell.name, ignore_errors=True)  # of a start that was killed
    scalars = Scalars(store.path / "tensorboard" / cell.name if settings.tensorboard else None)

    def progress(now: Progress) -> None:
        nonlocal compiling
        queue.check()
        compiling = now.seconds_compile
        display.round(cell, now.round, program.seconds)

    try:
        built = build(settings, mesh, like)
        store.check_data(built.facts)
        records.memory_needed(built.simulation)
        for _, latest in built.iterate(progress=progress):
            rows.append(records.row(settings, latest))
            scalars.add(rows[-1])
        summary = {"status": "done", **records.summary(built, latest, compiling, rows)}
        result = records.brief(latest)
    except Stopped:
        raise
    except Exception as error:  # the rest of the sweep goes on
        reason = " ".join(str(error).split()) or type(error).__name__
        if not (rows and isinstance(error, DivergedError)):
            store.fail(cell, reason, "" if isinstance(error, InputError) else traceback.format_exc())
            return f"failed: {reason}", None
        summary = {"status": "diverged", "reason": reason}
        result = f"diverged: {reason}"
    finally:
        scalars.close()
    texts = {"config.json": records.config(built), "summary.json": summary}
    store.put(
        cell,
        {name: json.dumps(text, indent=2) + "\n" for name, text in texts.items()} | {"metrics.csv": csv_text(rows)},
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
