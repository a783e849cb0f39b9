"""Part of a sweep that runs on a Dask worker, whose threads share its accelerators: one cell on each at a time."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from ddjax import sharding
from ddjax.errors import InputError
from ddjax.experiments import execution, extensions, inputs, records
from ddjax.experiments.settings import Settings
from ddjax.experiments.sweeps import cells, estimates
from ddjax.experiments.sweeps.cells import Outcome, Stopped
from ddjax.experiments.sweeps.plan import Cell
from ddjax.simulation import Progress, Simulation, memory

_SAY_EVERY = 1.0  # seconds between two messages about the progress of a cell


class Greeting(NamedTuple):
    """Description that a worker gives of itself.

    Attributes:
      environment: versions and backend.
      host: name of the worker's machine.
      accelerators: names of the worker's accelerators, unique in the cluster; on a CPU, each name contains the
        worker's address.
      memory: bytes that are free for cells on the host; infinite if accelerators have their own memory.
      files: path → digest, for each file that the sweep reads, as the worker sees the file.
    """

    environment: dict[str, Any]
    host: str
    accelerators: list[str]
    memory: float
    files: dict[str, str]


class _Process:
    """Accelerators of this process, each of which one thread uses at a time.

    A thread waits while all accelerators are in use, or while cells of another precision run, because JAX has one
    precision per process.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._precision = ""
        self.accelerators: list[jax.Device] = []
        self._idle: list[jax.Device] = []
        self._latest: dict[jax.Device, tuple[tuple, Simulation | None]] = {}  # accelerator → its last program

    @contextlib.contextmanager
    def lent(self, precision: str, program: tuple = ()) -> Iterator[tuple[jax.Device, Simulation | None]]:
        """Yield an accelerator, preferably one that compiled `program` last, and its simulation if so, else `None`."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready(precision))
            if precision != self._precision:
                self._start(precision)
            accelerator = max(self._idle, key=lambda one: self._latest.get(one, ((), None))[0] == program)
            self._idle.remove(accelerator)
        known, simulation = self._latest.get(accelerator, ((), None))
        try:
            with jax.default_device(accelerator):
                yield accelerator, simulation if known == program else None
        finally:
            with self._changed:
                self._idle.append(accelerator)
                self._changed.notify_all()

    def remember(self, accelerator: jax.Device, program: tuple, simulation: Simulation | None) -> None:
        """Keep the simulation that an accelerator compiled last, for the next cell with the same program."""
        self._latest[accelerator] = program, simulation

    def _ready(self, precision: str) -> bool:
        if precision == self._precision:
            return bool(self._idle)
        return len(self._idle) == len(self.accelerators)

    def _start(self, precision: str) -> None:
        threads = _dask().state.nthreads
        execution.start(Settings(host_devices=threads, precision=precision))
        if not self.accelerators:
            self.accelerators = jax.local_devices()[:threads]
            self._idle = list(self.accelerators)
        self._precision = precision


_process = _Process()


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C to the command that started this worker; Dask calls this function when it preloads the module."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def greet(sample: Sequence[Cell], precision: str, versions: Mapping[str, str]) -> Greeting:
    """Start JAX on this worker, and describe the worker.

    Args:
      sample: cells that together name all files that the sweep reads.
      precision: precision of the processes of the sweep.
      versions: package → version on the client.

    Raises:
      InputError: a version differs from the client's, the backend does not support the precision, a file is missing,
        or an included file differs from the client's.
    """
    with _process.lent(precision):
        environment = records.environment()
        own = environment["versions"]
        if other := {name: there for name, there in versions.items() if own[name] != there}:
            differing = ", ".join(f"{name} {own[name]} instead of {there}" for name, there in other.items())
            raise InputError(f"it has {differing}; install the client's versions")
        files: dict[str, str] = {}
        for cell in sample:
            files |= _files(cell)
        on_host = jax.default_backend() == "cpu"
        free = memory.available() if on_host else float("inf")
        return Greeting(environment, socket.gethostname(), _names(_process.accelerators), free, files)


def _files(cell: Cell) -> dict[str, str]:
    """Compute the digests of the files of a cell; raise `InputError` if one is missing or an included file differs."""
    try:
        extensions.include(cell.settings.include)
        if cell.settings.include and extensions.digests(cell.settings.include) != cell.values["include"]:
            raise InputError(f"{', '.join(cell.settings.include)} differs from what the client includes")
        return inputs.file_digests(cell.settings)
    except (OSError, InputError) as error:
        reason = f"{error.filename!r}: {error.strerror}" if isinstance(error, OSError) else error
        raise InputError(
            f"{reason}; workers need the client's files under the same paths, and this worker runs in {os.getcwd()!r}"
        ) from None


def _names(accelerators: Sequence[jax.Device]) -> list[str]:
    """Name accelerators so that two workers that share an accelerator give it the same name."""
    if jax.default_backend() == "cpu":
        return [f"{_dask().address} {device.id}" for device in accelerators]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    numbers = [device.local_hardware_id for device in accelerators]
    return [f"{socket.gethostname()} {visible[n] if n < len(visible) and visible[n] else n}" for n in numbers]


def peak(precision: str) -> float:
    """Measure the floating-point operations per second of a matrix product, on one accelerator of this worker."""
    with _process.lent(precision) as (accelerator, _):
        return estimates.peak(accelerator)


def measure(cell: Cell, precision: str) -> estimates.Estimate:
    """Estimate the time and memory that a cell takes on this worker (see `estimates.measure`)."""
    with _process.lent(precision) as (accelerator, _):
        return estimates.measure(cell, accelerator)


def run(cell: Cell, precision: str, topic: str) -> Outcome:
    """Run a cell on an idle accelerator of this worker.

    Args:
      cell: the cell.
      precision: precision of the processes of the sweep.
      topic: Dask topic under which rounds are reported to the client.

    Raises:
      Stopped: the client has given up the cell, or is gone.
    """
    with _process.lent(precision, cell.program) as (accelerator, like):
        mesh = sharding.mesh([accelerator])
        outcome, simulation = cells.run(cell.settings, mesh, like, _progress(cell, topic))
        _process.remember(accelerator, cell.program, simulation)
        return outcome


def _progress(cell: Cell, topic: str) -> Callable[[Progress], None]:
    """Make a function that reports the rounds of a cell to the client, and ends the cell if the client gave it up."""
    worker, said = _dask(), time.monotonic()
    key = worker.get_current_task()

    def progress(now: Progress) -> None:
        nonlocal said
        task = worker.state.tasks.get(key)
        if task is None or task.state != "executing":  # Dask cannot end a thread
            raise Stopped
        if time.monotonic() - said > _SAY_EVERY:
            said = time.monotonic()
            worker.log_event(topic, (cell.name, now.round, now.seconds_train))

    return progress


def _dask() -> Any:
    from distributed import get_worker  # an optional extra

    return get_worker()
