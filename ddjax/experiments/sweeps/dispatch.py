"""Hands jobs to the workers of a Dask cluster, one an accelerator, and to others where a worker dies."""

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

_LOOK_EVERY = 1.0  # seconds between two looks at which workers there are
_FETCH = 30.0  # seconds that a worker has to hand over a result
_DEATHS = 3  # of workers that ran a job, after which no other is risked


class Job(NamedTuple):
    """A call for a worker.

    Attributes:
      name: of what it does, by which deaths are counted.
      call: a function of the module `worker`.
      arguments: its arguments.
      memory: bytes that it takes.
      about: what the caller wants to know of it.
    """

    name: str
    call: Callable
    arguments: tuple
    memory: int = 0
    about: Any = None


class LostError(Exception):
    """Several workers died, one after the other, while they ran a job."""

    def __init__(self) -> None:
        super().__init__(f"{_DEATHS} workers died, one after the other, while they ran it; was their memory too small?")


class Worker:
    """What is known of a worker.

    Attributes:
      address: by which Dask knows it.
      greeting: what it said of itself; `None` before, and where it is not used.
      refused: why it is not used.
      jobs: those that it runs.
      last: what its last job was about.
    """

    def __init__(self, address: str):
        self.address = address
        self.greeting: Greeting | None = None
        self.refused = ""
        self.jobs: list[Job] = []
        self.last: Any = None

    @property
    def lanes(self) -> int:
        """How many jobs it runs at a time."""
        return len(self.greeting.accelerators) if self.greeting else 0


class Dispatcher:
    """The workers of a cluster, those that come later included.

    Args:
      client: of the cluster.
      address: of its scheduler, for messages.
      hello: the job by which a worker is greeted.
      check: called with each greeting; raises `InputError` where the worker must not be used.
    """

    def __init__(self, client: Any, address: str, hello: Job, check: Callable[[Greeting], None]):
        self._client, self._address, self._hello, self._check = client, address, hello, check
        self.workers: dict[str, Worker] = {}
        self._tasks: dict[Any, tuple[Worker, Job]] = {}  # future → where it runs, and what
        self._deaths: collections.Counter[str] = collections.Counter()
        self._heard: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()  # a future that is done, or what was said
        self._looked, self._alone = -_LOOK_EVERY, False

    def room(self, worker: Worker) -> float:
        """Bytes that a worker has left for another job; without a job on its host there is room for any."""
        greeting = worker.greeting
        assert greeting
        neighbors = [
            other for other in self.workers.values() if other.greeting and other.greeting.host == greeting.host
        ]
        beside = [job.memory for other in neighbors for job in other.jobs]
        return greeting.memory - sum(beside) if beside else math.inf

    def say(self, message: Any) -> None:
        """Has `each` yield a message; any thread may call it."""
        self._heard.put((None, message))

    def each(self, take: Callable[[Worker], Job | None], back: Callable[[Job], None]) -> Iterator[tuple[Any, Any]]:
        """Runs jobs until there are no more, and waits where there is no worker.

        Args:
          take: the next job for a worker with an idle accelerator.
          back: called with a job whose worker died; it is to be taken again.

        Yields:
          A job that has ended, with what it returned or the exception that it raised; or `None` and what was said.

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
        """Gives up what runs."""
        with contextlib.suppress(Exception):  # the scheduler may be gone, which has given it up by then
            self._client.cancel(list(self._tasks))
        self._tasks.clear()

    def _check_scheduler(self) -> None:
        if self._client.status != "running":
            raise self._gone()

    def _gone(self) -> InputError:
        return InputError(f"the scheduler at {self._address} is gone; cells that are done are kept")

    def _submit(self, worker: Worker, job: Job) -> None:
        # Not elsewhere, where an accelerator would have two jobs.
        future = self._client.submit(
            job.call, *job.arguments, pure=False, workers=[worker.address], allow_other_workers=False
        )
        self._tasks[future] = worker, job
        worker.jobs.append(job)
        future.add_done_callback(lambda future: self._heard.put((future, None)))

    def _look(self, back: Callable[[Job], None]) -> Iterator[tuple[Job, Any]]:
        """Greets workers that have come, and gives the jobs of those that have died to others."""
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
        """What there is to yield of a future that is done."""
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
        """Gives a job whose worker died to another, unless that happened too often."""
        worker, job = self._tasks.pop(future)
        worker.jobs.remove(job)
        if job is self._hello:
            self.workers.pop(worker.address, None)  # to be greeted again, if it comes again
            return
        self._deaths[job.name] += 1
        if self._deaths[job.name] < _DEATHS:
            _note(f"the worker {worker.address} is gone, and {job.name} is given to another")
            back(job)
        else:
            yield job, LostError()

    def _greeted(self, worker: Worker, said: Any) -> None:
        """Takes a worker into use, or says why not."""
        try:
            if isinstance(said, Exception):
                raise said
            self._check(said)
            taken = {name for other in self.workers.values() if other.greeting for name in other.greeting.accelerators}
            if shared := taken.intersection(said.accelerators):
                raise InputError(f"another worker has the accelerator {min(shared)}; set CUDA_VISIBLE_DEVICES for each")
            worker.greeting = said
        except Exception as error:
            kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
            worker.refused = f"worker {worker.address}: {kind}{' '.join(str(error).split())}"
            _note(f"not used: {worker.refused}")


def _note(text: str) -> None:
    """A line on stderr, above the bar if there is one."""
    tqdm.write(f"sweep.py: {text}", file=sys.stderr)
