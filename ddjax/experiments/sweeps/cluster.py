"""Cells of a sweep that run on the workers of a Dask cluster; only the client writes to the folder."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from typing import Any

from ddjax.errors import InputError
from ddjax.experiments import records
from ddjax.experiments.sweeps import cells, worker
from ddjax.experiments.sweeps.dispatch import Dispatcher, Job, Worker
from ddjax.experiments.sweeps.estimates import Estimate
from ddjax.experiments.sweeps.plan import Cell
from ddjax.experiments.sweeps.progress import Display
from ddjax.experiments.sweeps.queue import Program, longest
from ddjax.experiments.sweeps.store import COLLECT_EVERY, Store

_ANSWER = 10  # seconds within which a scheduler must answer


class Cluster:
    """Workers of a Dask cluster, as a context manager that releases them at its end.

    Args:
      address: address of the scheduler, or `local` for workers on this machine that end with the sweep.
      threads: number of cells that the worker of `local` runs at the same time on a CPU.
      todo: the cells to run.
      precision: precision of the worker processes.
      store: store of the cells.

    Raises:
      InputError: Dask is not installed, no scheduler answers at the address, or no worker can be used.
    """

    longest_first = True

    def __init__(self, address: str, threads: int, todo: Sequence[Cell], precision: str, store: Store):
        self._precision = precision
        sample = list({_files(cell): cell for cell in todo}.values())
        versions = {name: version for name, version in records.versions().items() if name != "python"}
        hello = Job("greeting", worker.greet, (sample, precision, versions))
        with contextlib.ExitStack() as opened:
            self._client = _connect(address, threads, opened)
            self._dispatcher = Dispatcher(
                self._client, self._client.scheduler.address, hello, lambda said: store.check_data(said.files)
            )
            self._close = opened.pop_all().close

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *error: object) -> None:
        self._dispatcher.stop()
        self._close()

    def count(self) -> int:
        """Return how many cells the current workers run at the same time."""
        return sum(one.lanes for one in list(self._dispatcher.workers.values()))  # another thread may call this

    def environment(self) -> dict[str, Any]:
        """Return the versions and the backend of a worker."""
        return next(one.greeting.environment for one in self._dispatcher.workers.values() if one.greeting)

    def peak(self) -> float:
        """Measure the floating-point operations per second of a matrix product, on one worker."""
        return self._map([Job("a measurement", worker.peak, (self._precision,))])[0]

    def measure(self, cells: Sequence[Cell]) -> list[Estimate]:
        """Estimate the time and memory that each cell takes (see `estimates.measure`)."""
        return self._map([Job(f"cell {cell.label}", worker.measure, (cell, self._precision)) for cell in cells])

    def _map(self, jobs: list[Job]) -> list[Any]:
        """Run jobs and return their results in order; raise the error of a job that fails."""
        left, results = list(reversed(jobs)), {}
        for job, result in self._dispatcher.each(lambda _: left.pop() if left else None, left.append):
            if isinstance(result, Exception):
                raise InputError(f"{job.name}: {result}") if not isinstance(result, InputError) else result
            results[id(job)] = result
        return [results[id(job)] for job in jobs]

    def work(self, programs: Sequence[Program], store: Store, display: Display) -> None:
        """Run all cells, the longest first, and collect the tables every minute."""
        topic, running, collected = f"ddjax-{self._client.id}", {}, time.monotonic()

        def take(free: Worker) -> Job | None:
            while program := longest(programs, free.last, self._dispatcher.room(free)):
                cell = program.cells.popleft()
                if not store.holds(cell):
                    job = Job(f"cell {cell.label}", worker.run, (cell, self._precision, topic), program.memory, program)
                    running[cell.name] = job
                    display.begin(cell, program, fresh=free.last is not program)
                    return job
                display.begin(cell, program, fresh=False)
                display.end(cell, "done by another process", None)
            return None

        def back(job: Job) -> None:
            job.about.cells.appendleft(job.arguments[0])
            display.back(running.pop(job.arguments[0].name).arguments[0])

        # Workers report at most once a second: JAX reports more often than a scheduler should notify its clients.
        self._client.subscribe_topic(topic, lambda event: self._dispatcher.say(event[1]))
        try:
            for job, said in self._dispatcher.each(take, back):
                if job is None:
                    name, number, trained = said
                    if name in running:
                        display.round(running[name].arguments[0], number, trained)
                    continue
                cell = job.arguments[0]
                del running[cell.name]
                outcome = cells.failed(said) if isinstance(said, Exception) else said
                with contextlib.closing(store.scalars(cell)) as scalars:
                    for row in outcome.rows:
                        scalars.add(row)
                display.end(cell, store.keep(cell, outcome), outcome.trained)
                if time.monotonic() - collected > COLLECT_EVERY:
                    store.collect()
                    collected = time.monotonic()
        finally:
            self._dispatcher.stop()


def _files(cell: Cell) -> tuple:
    """Return the values of the settings that name files."""
    settings = cell.settings
    return settings.dataset, settings.reference_dataset, settings.topology, settings.include


def _connect(address: str, threads: int, opened: contextlib.ExitStack) -> Any:
    """Connect to a cluster, and push whatever must be closed afterwards onto the stack."""
    try:
        import distributed  # an optional extra
    except ImportError:
        raise InputError("--scheduler needs Dask, which is not installed: pip install -e '.[dask]'") from None
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # errors are reported here, in one line each
    at: Any = address
    if address == "local":
        at = distributed.LocalCluster(
            n_workers=1,
            threads_per_worker=threads,
            memory_limit=None,
            dashboard_address=None,
            preload=[worker.__name__],
            silence_logs=logging.CRITICAL,
        )
        opened.callback(at.close)
    else:
        _ask(address)
    client = distributed.Client(at, timeout=_ANSWER, set_as_default=False)
    opened.callback(client.close, timeout=5)
    return client


def _ask(address: str) -> None:
    """Raise `InputError` if no scheduler answers; a client would keep trying for minutes."""
    from distributed import Security
    from distributed.comm import get_address_host_port
    from distributed.core import rpc

    async def identity() -> dict[str, Any]:
        async with rpc(address, connection_args=Security().get_connection_args("client")) as there:
            return await there.identity()

    try:
        get_address_host_port(address)
    except ValueError as error:
        raise InputError(f"--scheduler takes HOST:PORT or local, got {address!r}: {error}") from None
    try:
        kind = asyncio.run(asyncio.wait_for(identity(), _ANSWER))["type"]
    except Exception as error:  # whatever listens at the address may answer anything
        cause = " ".join(str(error).split())
        cause = cause and f" ({cause})"
        raise InputError(f"no Dask scheduler answered at --scheduler={address} within {_ANSWER} s{cause}") from None
    if kind != "Scheduler":
        raise InputError(f"--scheduler={address} is the address of a Dask {kind.lower()}, not of the scheduler")
