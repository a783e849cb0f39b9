"""Live progress of a sweep or a study, on stderr."""

import sys
import threading
import time
from collections.abc import Callable, Hashable

from tqdm import tqdm

from ddjax.experiments.sweeps.forecast import Forecast
from ddjax.experiments.sweeps.plan import Cell
from ddjax.experiments.units import duration

_SAY_EVERY = 30.0  # seconds between two lines if stderr is not a terminal and no cell ends


class Display:
    """Live progress on stderr: in a terminal, a line that is redrawn; otherwise, one per ended cell and every 30 s.

    Args:
      total: number of cells of the sweep, or of this shard.
      done: number of these cells that were done before.
      forecast: forecast of the time left for the other cells.
      now: function that returns the time in seconds, from a clock that never goes back.
    """

    def __init__(self, total: int, done: int, forecast: Forecast, now: Callable[[], float] = time.monotonic):
        self._lock, self._now, self._start = threading.Lock(), now, now()
        self._total, self._done, self._forecast = total, done, forecast
        self._running: dict[str, str] = {}  # name → what the cell is doing
        self._said = self._start
        self._bar = tqdm(
            total=1.0,
            bar_format="{desc} |{bar}| {elapsed}{postfix}",
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
            desc=self._cells(),
        )

    def begin(self, cell: Cell, program: Hashable, fresh: bool) -> None:
        """Show that a cell begins.

        Args:
          cell: the cell.
          program: program of the cell, a key of the forecast.
          fresh: whether the program is compiled for this cell.
        """
        with self._lock:
            self._forecast.begin(cell.name, program, fresh, self._now())
            self._running[cell.name] = f"{cell.label}: starting"
            self._draw()

    def round(self, cell: Cell, number: int, trained: float) -> None:
        """Show that a cell has done round `number`, after `trained` seconds of training."""
        with self._lock:
            rounds = cell.settings.rounds
            self._forecast.follow(cell.name, number / max(rounds, 1), trained)
            self._running[cell.name] = f"{cell.label}: round {number:,}/{rounds:,}"
            self._draw()
            if self._now() - self._said > _SAY_EVERY:
                self._say(f"{self._cells()}, {self._left()}; {self._doing()}")

    def end(self, cell: Cell, result: str, trained: float | None) -> None:
        """Show that a cell has ended.

        Args:
          cell: the cell.
          result: the result in a few words.
          trained: seconds of training; `None` if the cell did not run to its end.
        """
        with self._lock:
            self._running.pop(cell.name, None)
            self._forecast.end(cell.name, self._now(), trained)
            self._done += 1
            self._draw()
            self._say(f"{self._cells()}, {self._left()}; {cell.label}: {result}")

    def back(self, cell: Cell) -> None:
        """Show that a cell is waiting again because its worker died."""
        with self._lock:
            self._running.pop(cell.name)
            self._forecast.back(cell.name)
            self._draw()

    def close(self) -> None:
        """Leave the last state on the screen."""
        self._bar.close()

    def _draw(self) -> None:
        spent, left = self._now() - self._start, self._forecast.left(self._now())
        self._bar.n = spent / (spent + left) if spent + left else 1.0
        self._bar.set_description_str(self._cells(), refresh=False)
        self._bar.set_postfix_str(f"{self._left()}; {self._doing()}")

    def _say(self, text: str) -> None:
        if self._bar.disable:
            self._said = self._now()
            print(text, file=sys.stderr, flush=True)

    def _cells(self) -> str:
        return f"{self._done}/{self._total} cells"

    def _left(self) -> str:
        return f"about {duration(self._forecast.left(self._now()))} left"

    def _doing(self) -> str:
        return "; ".join(self._running.values())
