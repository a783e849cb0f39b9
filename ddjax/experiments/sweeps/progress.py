"""Live progress of a sweep or a study, on stderr."""

import sys
import threading
import time
from collections.abc import Callable, Hashable

from tqdm import tqdm

from ddjax.experiments.sweeps.forecast import Forecast
from ddjax.experiments.sweeps.plan import Cell
from ddjax.experiments.units import duration

_DRAW_EVERY = 1.0  # seconds between two drawings of the line in a terminal
_SAY_EVERY = 30.0  # seconds between two lines if stderr is not a terminal and no cell ends


class Display:
    """Live progress on stderr: in a terminal, a line that is redrawn; otherwise, a line per ended cell and every 30 s.

    As a context manager, it calls `tick` every second, also while cells compile or do not report their rounds.

    Args:
      total: number of cells of the sweep, or of this shard.
      done: number of these cells that were done before.
      forecast: forecast of the time left for the other cells.
      stage: words that follow "about … left".
      now: function that returns the time in seconds, from a clock that never goes back.
    """

    def __init__(
        self,
        total: int,
        done: int,
        forecast: Forecast,
        stage: str = "",
        now: Callable[[], float] = time.monotonic,
    ):
        self._lock, self._now, self._start = threading.Lock(), now, now()
        self._total, self._done, self._forecast, self._stage = total, done, forecast, stage
        self._running: dict[str, str] = {}  # name → what the cell is doing
        self._said, self._lines = self._start, not sys.stderr.isatty()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._tick_until_closed, daemon=True)
        self._bar = tqdm(
            total=1.0,
            bar_format="{desc} |{bar}| {elapsed}{postfix}",
            disable=self._lines,
            dynamic_ncols=True,
            desc=self._cells(),
        )

    def __enter__(self) -> "Display":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the last state on the screen."""
        self._closed.set()
        self._thread.join()
        self._bar.close()

    def _tick_until_closed(self) -> None:
        while not self._closed.wait(_DRAW_EVERY):
            self.tick()

    def tick(self) -> None:
        """Draw the line again, or print a line if none was printed in the last 30 seconds."""
        with self._lock:
            self._draw()
            if self._now() - self._said > _SAY_EVERY:
                self._say(self._doing())

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
        """Show that a cell has finished round `number`, after `trained` seconds of training."""
        with self._lock:
            rounds = cell.settings.rounds
            self._forecast.follow(cell.name, number / max(rounds, 1), trained)
            self._running[cell.name] = f"{cell.label}: round {number:,}/{rounds:,}"

    def train(self, cell: Cell) -> None:
        """Show that a cell begins to train, if it does not report its rounds."""
        with self._lock:
            self._forecast.train(cell.name, self._now())
            self._running[cell.name] = f"{cell.label}: {cell.settings.rounds:,} rounds"
            self._draw()

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
            self._say(f"{cell.label}: {result}")

    def back(self, cell: Cell) -> None:
        """Show that a cell is waiting again because its worker died."""
        with self._lock:
            self._running.pop(cell.name)
            self._forecast.back(cell.name)
            self._draw()

    def _draw(self) -> None:
        if self._lines:
            return
        spent, left = self._now() - self._start, self._forecast.left(self._now())
        self._bar.n = spent / (spent + left) if spent + left else 1.0
        self._bar.set_description_str(self._cells(), refresh=False)
        self._bar.set_postfix_str("" if self._done == self._total else f"{self._left(left)}; {self._doing()}")

    def _say(self, text: str) -> None:
        if self._lines:
            self._said = self._now()
            left = "" if self._done == self._total else f", {self._left(self._forecast.left(self._said))}"
            print(f"{self._cells()}{left}; {text}", file=sys.stderr, flush=True)

    def _cells(self) -> str:
        return f"{self._done}/{self._total} cells"

    def _left(self, seconds: float) -> str:
        return f"about {duration(seconds)} left{self._stage}"

    def _doing(self) -> str:
        return "; ".join(self._running.values()) or "no cell runs"
