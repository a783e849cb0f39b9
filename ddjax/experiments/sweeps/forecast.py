"""Forecast of the time left in a sweep or a study, from estimates that are corrected by measurements."""

import dataclasses
import heapq
import statistics
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

_WARM = 0.3  # assumed seconds outside training for a cell that does not compile, until such a cell has ended
_TRUST = 0.03  # weight of the estimates, relative to the weight of a measured program
_TELLING = 0.1  # seconds of training after which an unfinished run counts as measured


class Work(NamedTuple):
    """Cells that one compiled program runs.

    Attributes:
      cells: number of cells.
      parts: the two estimated parts of a cell's training time in seconds: its operations and its rounds.
      compiling: estimated seconds that the program takes to compile.
    """

    cells: int
    parts: tuple[float, float]
    compiling: float


@dataclasses.dataclass
class _Run:
    """Running cell.

    Attributes:
      program: program of the cell.
      fresh: whether the program is compiled for this cell.
      begun: time at which the cell began, in seconds.
      share: share of the cell's rounds that are done.
      trained: seconds of training so far.
      since: time at which training began, in seconds, for a cell that does not report its rounds.
    """

    program: Hashable
    fresh: bool
    begun: float
    share: float = 0.0
    trained: float = 0.0
    since: float | None = None

    @property
    def compiling(self) -> bool:
        """Whether the program of the cell is being compiled."""
        return self.fresh and not self.share and self.since is None


class Forecast:
    """Time left for cells that run side by side.

    Training time is estimated from operations and rounds, and both parts are scaled to fit the programs that were
    measured. Compilation estimates are scaled to fit the time that compiling cells spent outside training. For a
    cell that does not compile, the time outside training is estimated by the average over such cells that have ended.
    The forecast assumes that every lane compiles the programs that it runs, and that cells are assigned to lanes as in
    the module `queue`.

    Args:
      works: program → its work.
      lanes: function that returns how many cells can run at the same time.
      longest: whether an idle lane takes the longest cell (`queue.longest`), instead of another cell of the program
        that it has compiled (`Queue.take`).
    """

    def __init__(self, works: Mapping[Any, Work], lanes: Callable[[], int] = lambda: 1, longest: bool = False):
        self._works, self._lanes, self._longest = works, lanes, longest
        self._waiting = {program: work.cells for program, work in works.items()}
        self._running: dict[str, _Run] = {}
        self._training: dict[Hashable, list[float]] = {}  # program → seconds of training of cells that have ended
        self._compilations: list[tuple[float, float]] = []  # estimated and measured seconds
        self._beside: list[float] = []  # seconds outside training, for cells that did not compile
        self._idle: list[Hashable] = []  # programs that idle lanes have compiled

    def begin(self, name: str, program: Hashable, fresh: bool, now: float) -> None:
        """Record that a cell begins at `now`, in seconds."""
        self._waiting[program] -= 1
        if program in self._idle and not fresh:
            self._idle.remove(program)
        elif self._idle:
            self._idle.pop(0)
        self._running[name] = _Run(program, fresh, now)

    def follow(self, name: str, share: float, trained: float) -> None:
        """Record that a share of a cell's rounds is done, after `trained` seconds of training."""
        run = self._running[name]
        run.share, run.trained = share, trained

    def train(self, name: str, now: float) -> None:
        """Record that a cell that does not report its rounds begins to train at `now`, in seconds."""
        self._running[name].since = now

    def end(self, name: str, now: float, trained: float | None = None) -> None:
        """Record that a cell has ended at `now`.

        Args:
          name: name of the cell.
          now: the time in seconds.
          trained: seconds that the cell trained; `None` if it did not run to its end.
        """
        run = self._running.pop(name)
        self._idle.append(run.program)
        if trained is not None:
            self._training.setdefault(run.program, []).append(trained)
            beside = max(now - run.begun - trained, 0.0)
            if run.fresh:
                self._compilations.append((self._works[run.program].compiling, beside))
            else:
                self._beside.append(beside)

    def back(self, name: str) -> None:
        """Record that a cell is waiting again."""
        self._waiting[self._running.pop(name).program] += 1

    def left(self, now: float) -> float:
        """Compute the seconds from `now` until the last cell has ended."""
        training = self._expected(now)
        slower = self._slower(now)
        warm = statistics.fmean(self._beside or [_WARM])
        ends: list[tuple[float, Any]] = []  # per lane: seconds until it is idle, and the program that it compiled
        for run in self._running.values():
            ahead = training[run.program]
            if run.since is not None:
                ahead = max(ahead + warm - (now - run.since), 0.0)
            elif run.share:
                ahead = (ahead + warm) * (1 - run.share)
            else:
                beside = slower * self._works[run.program].compiling if run.fresh else warm
                ahead += max(beside - (now - run.begun), 0.0)
            ends.append((ahead, run.program))
        idle = max(self._lanes() - len(ends), 0 if ends else 1)
        ends += [(0.0, program) for program in [*self._idle[::-1], *[None] * idle][:idle]]
        again = {program: training[program] + warm for program in self._works}
        first = {
            program: training[program] + max(slower * work.compiling, warm) for program, work in self._works.items()
        }
        return self._schedule(ends, first, again)

    def _schedule(
        self, ends: Sequence[tuple[float, Any]], first: Mapping[Any, float], again: Mapping[Any, float]
    ) -> float:
        """Assign the waiting cells to lanes, and compute the seconds until the last cell has ended.

        Args:
          ends: for each lane, the seconds until it is idle, and the program that it compiled last.
          first: program → seconds of a cell on a lane that compiles the program.
          again: program → seconds of a cell on a lane that has compiled the program.
        """
        waiting = {program: count for program, count in self._waiting.items() if count}
        order = sorted(waiting, key=again.__getitem__)
        lanes = [(end, number, program) for number, (end, program) in enumerate(ends)]
        heapq.heapify(lanes)
        last = max(end for end, _ in ends)
        while waiting:
            end, number, program = lanes[0]
            if self._longest:
                while order[-1] not in waiting:
                    order.pop()
                chosen = program if program in waiting and again[program] == again[order[-1]] else order[-1]
            elif program in waiting:
                chosen = program
            else:
                held = {held for _, _, held in lanes}
                chosen = max(waiting, key=lambda each: (each not in held, again[each] * waiting[each]))
            end += again[chosen] if chosen == program else first[chosen]
            last = max(last, end)
            heapq.heapreplace(lanes, (end, number, chosen))
            waiting[chosen] -= 1
            if not waiting[chosen]:
                del waiting[chosen]
        return last

    def _slower(self, now: float) -> float:
        """Compute the ratio of compilation times to their estimates, including late compilations that still run."""
        factor = _ratio(self._compilations) if self._compilations else 1.0
        compiling = [run for run in self._running.values() if run.compiling]
        late = [(self._works[run.program].compiling, now - run.begun) for run in compiling]
        late = [(estimated, spent) for estimated, spent in late if spent > factor * estimated]
        return _ratio([*self._compilations, *late]) if late else factor

    def _expected(self, now: float) -> dict[Hashable, float]:
        """Predict the seconds of training of one cell, for each program."""
        known = {program: statistics.fmean(seconds) for program, seconds in self._training.items()}
        for run in self._running.values():
            if run.program not in known and run.share and run.trained > _TELLING:
                known[run.program] = run.trained / run.share
        factors = self._factors(known)
        expected = {
            program: known.get(program, float(factors @ np.array(work.parts))) for program, work in self._works.items()
        }
        for run in self._running.values():
            if run.since is not None:  # a cell takes at least as long as it has already taken
                expected[run.program] = max(expected[run.program], now - run.since)
        return expected

    def _factors(self, known: Mapping[Hashable, float]) -> np.ndarray:
        """Fit a factor for each part of the estimates, by least squares on relative errors, regularized towards 1."""
        rows = [np.array(self._works[program].parts) / seconds for program, seconds in known.items() if seconds > 0]
        matrix = np.vstack([*rows, _TRUST * np.eye(2)])
        target = np.concatenate([np.ones(len(rows)), np.full(2, _TRUST)])
        return np.linalg.lstsq(matrix, target, rcond=None)[0].clip(0.05)


def _ratio(pairs: Sequence[tuple[float, float]]) -> float:
    """Divide the sum of the measured values by the sum of their estimates."""
    return sum(measured for _, measured in pairs) / max(sum(estimated for estimated, _ in pairs), 1e-9)
