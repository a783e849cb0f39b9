"""Dispatcher of jobs to the workers of a Dask cluster, one job per accelerator; jobs of dead workers go to others."""

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

_LOOK_EVERY = 1.0  # seconds between two looks at the list of workers
_FETCH = 30.0  # seconds that a worker has to hand over a result
_DEATHS = 3  # number of workers that may die while they run a job, before it is given up


class Job(NamedTuple):
    """Call for a worker to make.

    Attributes:
      name: name of the job, by which deaths are counted.
      call: function of the module `worker`.
      arguments: arguments of the function.
      memory: bytes that the job takes.
      about: anything that the caller attaches to it.
    """

    name: str
    call: Callable
    arguments: tuple
    memory: int = 0
    about: Any = None


class LostError(Exception):
    """Several workers died, one after another, while they ran a job."""

    def __init__(self) -> None:
        super().__init__(f"{_DEATHS} workers died, one after another, while they ran it; was their memory too small?")


class Worker:
    """Record of a worker.

    Attributes:
      address: its address in Dask.
      greeting: description that it gave of itself; `None` before, and if it is not used.
      refused: why it is not used; empty if it is.
      jobs: jobs that it runs.
      last: attachment (`Job.about`) of the last job that it ended.
    """

    def __init__(self, address: str):
        self.address = address
        self.greeting: Greeting | None = None
        self.refused = ""
        self.jobs: list[Job] = []
        self.last: Any = None

    @property
    def lanes(self) -> int:
        """Number of jobs that it runs at a time."""
        return len(self.greeting.accelerators) if self.greeting else 0


class Dispatcher:
    """Workers of a cluster, including those that come later.

    Args:
      client: client of the cluster.
      address: address of its scheduler, for messages.
      hello: job that greets a worker.
      check: called with each greeting; raises `InputError` if the worker must not be used.
    """

    def __init__(self, client: Any, address: str, hello: Job, check: Callable[[Greeting], None]):
        self._client, self._address, self._hello, self._check = client, address, hello, check
        self.workers: dict[str, Worker] = {}
        self._tasks: dict[Any, tuple[Worker, Job]] = {}  # future → where it runs, and what
        self._deaths: collections.Counter[str] = collections.Counter()
        self._heard: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()  # a finished future, or a message
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
        """Let `each` yield a message; any thread may call this."""
        self._heard.put((None, message))

    def each(self, take: Callable[[Worker], Job | None], back: Callable[[Job], None]) -> Iterator[tuple[Any, Any]]:
        """Run jobs until there are no more, and wait while there is no worker.

        Args:
          take: returns the next job for a worker with an idle accelerator, or `None`.
          back: called with a job whose worker died; `take` should return it again.

        Yields:
          A job that has ended, with its result or the exception that it raised; or `None` and a message.

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
                elif future in self._tasks:  # else it was given up
                    yield from self._end(future, back)

    def stop(self) -> None:
        """Give up the jobs that run."""
        with contextlib.suppress(Exception):  # the scheduler may be gone, which has given it up by then
            self._client.cancel(list(self._tasks))
        self._tasks.clear()

    def _check_scheduler(self) -> None:
        if self._client.status != "running":
            raise self._gone()

    def _gone(self) -> InputError:
        return InputError(f"the scheduler at {self._address} is gone; finished cells are kept")

    def _submit(self, worker: Worker, job: Job) -> None:
        # On this worker only: on another one, an accelerator would have two jobs.
        future = self._client.submit(
            job.call, *job.arguments, pure=False, workers=[worker.address], allow_other_workers=False
        )
        self._tasks[future] = worker, job
        worker.jobs.append(job)
        future.add_done_callback(lambda future: self._heard.put((future, None)))

    def _look(self, back: Callable[[Job], None]) -> Iterator[tuple[Job, Any]]:
        """Greet workers that have come, and give the jobs of those that have died to others."""
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
            _note(f"there is no worker; waiting for one: dask worker {self._address} --memory-limit=0")
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
        """Give a job whose worker died to another worker, unless that happened too often."""
        worker, job = self._tasks.pop(future)
        worker.jobs.remove(job)
        if job is self._hello:
            self.workers.pop(worker.address, None)  # to be greeted again, if it comes again
            return
        self._deaths[job.name] += 1
        if self._deaths[job.name] < _DEATHS:
            _note(f"the worker {worker.address} is gone; another one takes {job.name}")
            back(job)
        else:
            yield job, LostError()

    def _greeted(self, worker: Worker, said: Any) -> None:
        """Take a worker into use, or print why not."""
        try:
            if isinstance(said, Exception):
                raise said
            self._check(said)
            taken = {name for other in self.workers.values() if other.greeting for name in other.greeting.accelerators}
            if shared := taken.intersection(said.accelerators):
                raise InputError(
                    f"another worker has the accelerator {min(shared)}; set CUDA_VISIBLE_DEVICES for each worker"
                )
            worker.greeting = said
        except Exception as error:
            kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
            worker.refused = f"worker {worker.address}: {kind}{' '.join(str(error).split())}"
            _note(f"not used: {worker.refused}")


def _note(text: str) -> None:
    """Print a line on stderr, above the bar if there is one."""
    tqdm.write(f"sweep.py: {text}", file=sys.stderr)
