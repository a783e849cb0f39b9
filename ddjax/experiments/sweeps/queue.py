"""Queue of the cells of a sweep that are left to run, shared by the lanes."""

import collections
import threading
from collections.abc import Sequence

from ddjax.experiments.sweeps.cells import Stopped
from ddjax.experiments.sweeps.plan import Cell


class Program:
    """Cells that one compiled program can run, with estimates.

    Attributes:
      cells: cells that are left to run.
      memory: bytes that one cell takes at the peak of a round.
      parts: the two estimated parts of a cell's training time on one accelerator, in seconds: operations and rounds.
      compiling: estimated seconds that the program takes to compile.
      seconds: estimated total seconds of one cell, including its share of the compilation.
    """

    def __init__(self, cells: Sequence[Cell], memory: int, parts: tuple[float, float], compiling: float = 0.0):
        self.cells = collections.deque(cells)
        self.memory, self.parts, self.compiling = memory, parts, compiling
        self.seconds = sum(parts) + compiling / len(cells)


class Queue:
    """Queue of the cells that are left to run, shared by the lanes.

    Args:
      programs: the programs, with their cells.
      budget: bytes that all running cells may take together; a single cell may always run.
    """

    def __init__(self, programs: Sequence[Program], budget: float):
        self._programs, self._budget = programs, budget
        self._running: list[Program] = []
        self._changed = threading.Condition()
        self._stopped = False

    def take(self, last: Program | None) -> tuple[Program, Cell] | None:
        """Take the next cell, and wait for memory if necessary; `None` if no cell is left.

        The next cell belongs to the program that the lane compiled last. If that program has no cells left, the lane
        prefers programs that no other lane runs and, among equals, the program with the most work left.
        """
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
        """Record that a cell of the program has ended."""
        with self._changed:
            self._running.remove(program)
            self._changed.notify_all()

    def stop(self) -> None:
        """Hand out no more cells, and let `check` end the running cells."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def check(self) -> None:
        """Raise `Stopped` if the sweep has been stopped."""
        if self._stopped:
            raise Stopped


def longest(programs: Sequence[Program], last: Program | None, room: float) -> Program | None:
    """Find the program with the longest cells among the programs that fit into `room` bytes; `last` wins a tie."""
    fitting = [program for program in programs if program.cells and program.memory <= room]
    return max(fitting, key=lambda program: (program.seconds, program is last), default=None)
