"""What is left to do of a sweep, shared by the lanes."""

import collections
import threading
from collections.abc import Sequence

from ddjax.experiments.sweeps.cells import Stopped
from ddjax.experiments.sweeps.plan import Cell


class Program:
    """Cells that one compiled program can run, and what they will take.

    Attributes:
      cells: those left to do.
      memory: bytes of one of them at the peak of a round.
      seconds: estimate for one of them, on one accelerator.
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


def longest(programs: Sequence[Program], last: Program | None, room: float) -> Program | None:
    """The program with the longest cells of those that have cells left and fit into `room` bytes; of equals, `last`."""
    fitting = [program for program in programs if program.cells and program.memory <= room]
    return max(fitting, key=lambda program: (program.seconds, program is last), default=None)
