"""Live progress of a sweep, on stderr."""

import sys
import threading
import time

from tqdm import tqdm

from ddjax.experiments.sweeps.plan import Cell


class Display:
    """Live progress on stderr: on a terminal a bar, else a line a cell.

    Args:
      total: cells of the sweep, or of this shard.
      done: those done before.
      seconds: estimate of the others.
    """

    def __init__(self, total: int, done: int, seconds: float):
        self._lock, self._start = threading.Lock(), time.monotonic()
        self._total, self._done, self._seconds, self._ended = total, done, seconds, 0.0
        self._running: dict[str, tuple[str, float]] = {}  # name → what it does, estimated seconds of that
        layout = "{desc} {percentage:3.0f}%|{bar}| {elapsed}{postfix}"
        self._bar = tqdm(
            total=seconds, bar_format=layout, disable=not sys.stderr.isatty(), dynamic_ncols=True, desc=self._cells()
        )

    def _cells(self) -> str:
        return f"{self._done}/{self._total} cells"

    def round(self, cell: Cell, number: int, seconds: float) -> None:
        """A cell is in round `number`; all its rounds are estimated at `seconds`."""
        with self._lock:
            rounds = cell.settings.rounds
            self._running[cell.name] = f"{cell.label}: {number}/{rounds}", seconds * number / max(rounds, 1)
            self._draw()

    def end(self, cell: Cell, result: str, seconds: float) -> None:
        """A cell has ended."""
        with self._lock:
            self._running.pop(cell.name, None)
            self._done, self._ended = self._done + 1, self._ended + seconds
            self._draw()
            if self._bar.disable:
                print(f"{self._cells()}: {cell.label}: {result}; {self._left()} left", file=sys.stderr, flush=True)

    def _draw(self) -> None:
        now = "; ".join(text for text, _ in self._running.values())
        self._bar.n = min(self._work(), self._seconds)
        self._bar.set_description_str(self._cells(), refresh=False)
        self._bar.set_postfix_str(f"{self._left()} left ({now})")

    def _left(self) -> str:
        work = self._work()
        spent = time.monotonic() - self._start
        return duration(spent * max(self._seconds - work, 0) / work) if work else "unknown time"

    def _work(self) -> float:
        return self._ended + sum(seconds for _, seconds in self._running.values())

    def close(self) -> None:
        """Leaves the last state standing."""
        self._bar.close()


def duration(seconds: float) -> str:
    """A length of time as a person says it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
