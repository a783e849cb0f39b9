"""Dispatcher of jobs to Dask workers, one per accelerator at a time; if a worker dies, others take over its jobs."""

import collections
import contextlib
import math
import queue
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from typing import Any, NamedTuple

from tqdm import tqdm

from ddjax.errors import InputError
from ddjax.experiments.sweeps.worker import Greeting

_LOOK_EVERY = 1.0  # seconds between two checks of the list of workers
_FETCH = 30.0  # seconds within which a worker must hand over a result
_DEATHS = 3  # a job is given up after this many workers have died while they ran it


class Job(NamedTuple):
    """Function call that a worker makes.

    Attributes:
      name: name of the job; workers that die while they run it are counted under this name.
      call: function of the module `worker`.
      arguments: arguments of the function.
      memory: bytes that the job takes.
      about: anything that the caller attaches to the job.
    """

    name: str
    call: Callable
    arguments: tuple
    memory: int = 0
    about: Any = None


class LostError(Exception):
    """Several workers died, one after another, while they ran a job."""

    def __init__(self) -> None:
        super().__init__(
            f"{_DEATHS} workers died, one after another, while they ran this job; was their memory too small?"
        )


class Worker:
    """Record of a worker.

    Attributes:
      address: address of the worker in Dask.
      greeting: description that the worker gave of itself; `None` before it answers, or if the worker is not used.
      refused: why the worker is not used; empty if it is used.
      jobs: jobs that the worker runs.
      last: attachment (`Job.about`) of the last job that ended on the worker.
    """

    def __init__(self, address: str):
        self.address = address
        self.greeting: Greeting | None = None
        self.refused = ""
        self.jobs: list[Job] = []
        self.last: Any = None

    @property
    def lanes(self) -> int:
        """Number of jobs that the worker runs at the same time."""
        return len(self.greeting.accelerators) if self.greeting else 0


class Dispatcher:
    """Dispatcher of jobs to the workers of a cluster, including workers that join later.

    Args:
      client: client of the cluster.
      address: address of the cluster's scheduler, for messages.
      hello: job that greets a worker.
      check: called with each greeting; raises `InputError` if the worker must not be used.
    """

    def __init__(self, client: Any, address: str, hello: Job, check: Callable[[Greeting], None]):
        self._client, self._address, self._hello, self._check = client, address, hello, check
        self.workers: dict[str, Worker] = {}
        self._tasks: dict[Any, tuple[Worker, Job]] = {}  # future → its worker and its job
        self._deaths: collections.Counter[str] = collections.Counter()
        self._heard: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()  # finished futures and messages
        self._looked, self._alone = -_LOOK_EVERY, False

    def room(self, worker: Worker) -> float:
        """Compute the bytes that a worker has left for another job; infinite if no job runs on its host."""
        greeting = worker.greeting
        assert greeting
        neighbors = [
            other for other in self.workers.values() if other.greeting and other.greeting.host == greeting.host
        ]
        beside = [job.memory for other in neighbors for job in other.jobs]
        return greeting.memory - sum(beside) if beside else math.inf

    def say(self, message: Any) -> None:
        """Let `each` yield a message; any thread may call this method."""
        self._heard.put((None, message))

    def each(self, take: Callable[[Worker], Job | None], back: Callable[[Job], None]) -> Iterator[tuple[Any, Any]]:
        """Run jobs until none is left; while there is no worker, wait for one.

        Args:
          take: returns the next job for a worker with an idle accelerator, or `None` if there is no such job.
          back: called with a job whose worker died; `take` should return that job again.

        Yields:
          A job that has ended, and its result or the exception that it raised; or `None`, and a message from `say`.

        Raises:
          InputError: no worker can be used, or the scheduler is gone.
        """
        while True:
            self._check_scheduler()
            if time.monotonic() - self._looked >= _LOOK_EVERY:
                yield from self._look(back)
            ready = [worker for worker in self.workers.values() if worker.lanes]
            for worker in ready:
                while len(worker.jobs) < worker.lanes and (job := take(worker)):
                    self._submit(worker, job)
            if ready and not any(worker.jobs for worker in ready):
                return
            with contextlib.suppress(queue.Empty):
                future, message = self._heard.get(timeout=_LOOK_EVERY)
                if future is None:
                    yield None, message
                elif future in self._tasks:  # otherwise, the job was given up
                    yield from self._end(future, back)

    def stop(self) -> None:
        """Give up the running jobs."""
        with contextlib.suppress(Exception):  # if the scheduler is gone, so are the jobs
            self._client.cancel(list(self._tasks))
        self._tasks.clear()

    def _check_scheduler(self) -> None:
        if self._client.status != "running":
            raise self._gone()

    def _gone(self) -> InputError:
        return InputError(f"the scheduler at {self._address} is gone; finished cells are kept")

    def _submit(self, worker: Worker, job: Job) -> None:
        # The job must run on this worker: on another one, an accelerator would have two jobs.
        future = self._client.submit(
            job.call, *job.arguments, pure=False, workers=[worker.address], allow_other_workers=False
        )
        self._tasks[future] = worker, job
        worker.jobs.append(job)
        future.add_done_callback(lambda future: self._heard.put((future, None)))

    def _look(self, back: Callable[[Job], None]) -> Iterator[tuple[Job, Any]]:
        """Greet new workers, and pass the jobs of dead workers on to others."""
        self._looked = time.monotonic()
        try:
            alive = set(self._client.nthreads())
        except OSError:
            raise self._gone() from None
        for address in self.workers.keys() - alive:
            worker = self.workers.pop(address)
            for future in [future for future, (where, _) in self._tasks.items() if where is worker]:
                future.cancel()
                yield from self._lose(future, back)
        for address in alive - self.workers.keys():
            self.workers[address] = Worker(address)
            self._submit(self.workers[address], self._hello)
        refused = [worker for worker in self.workers.values() if worker.refused]
        if refused and len(refused) == len(self.workers):
            raise InputError(f"no worker of {self._address} can be used; {refused[0].refused}")
        if not (alive or self._alone):
            _note(f"waiting for a worker; start one with: dask worker {self._address} --memory-limit=0")
        self._alone = not alive

    def _end(self, future: Any, back: Callable[[Job], None]) -> Iterator[tuple[Job, Any]]:
        """Yield the job of a finished future, with its result."""
        from distributed import KilledWorker  # an optional extra

        try:
            result = future.result(timeout=_FETCH)
        except (KilledWorker, CancelledError, TimeoutError):
            self._check_scheduler()
            yield from self._lose(future, back)
            return
        except Exception as error:
            result = error
        worker, job = self._tasks.pop(future)
        worker.jobs.remove(job)
        if job is self._hello:
            self._greeted(worker, result)
        else:
            worker.last = job.about
            yield job, result

    def _lose(self, future: Any, back: Callable[[Job], None]) -> Iterator[tuple[Job, Any]]:
        """Pass on a job whose worker died, unless too many workers have died while they ran it."""
        worker, job = self._tasks.pop(future)
        worker.jobs.remove(job)
        if job is self._hello:
            self.workers.pop(worker.address, None)  # so that the worker is greeted if it comes back
            return
        self._deaths[job.name] += 1
        if self._deaths[job.name] < _DEATHS:
            _note(f"the worker {worker.address} is gone; another worker takes over {job.name}")
            back(job)
        else:
            yield job, LostError()

    def _greeted(self, worker: Worker, said: Any) -> None:
        """Start to use a worker, or print why it is not used."""
        try:
            if isinstance(said, Exception):
                raise said
            self._check(said)
            taken = {name for other in self.workers.values() if other.greeting for name in other.greeting.accelerators}
            if shared := taken.intersection(said.accelerators):
                raise InputError(
                    f"another worker uses the accelerator {min(shared)}; set CUDA_VISIBLE_DEVICES for each worker"
                )
            worker.greeting = said
        except Exception as error:
            kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
            worker.refused = f"worker {worker.address}: {kind}{' '.join(str(error).split())}"
            _note(f"not used: {worker.refused}")


def _note(text: str) -> None:
    """Print a line on stderr, above the progress bar if there is one."""
    tqdm.write(f"sweep.py: {text}", file=sys.stderr)
