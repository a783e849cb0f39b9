"""Live progress of one run, on stderr."""

import sys
import time

import jax
from tqdm import tqdm

from ddjax.experiments import records
from ddjax.simulation import Evaluation, Progress


class Display:
    """Live progress on stderr: redrawn on a terminal, else a line every ten seconds.

    Args:
      rounds: of the whole run.
      start: rounds done already.
    """

    def __init__(self, rounds: int, start: int):
        terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=rounds, initial=start, unit="round", disable=not terminal, dynamic_ncols=True, smoothing=0.1
        )
        self._rounds = rounds
        self._start, self._said, self._latest = start, time.monotonic(), ""
        self._seconds: float | None = None  # trained before this run went on
        self.seconds_compile = 0.0

    def progress(self, progress: Progress) -> None:
        """After each scan."""
        self.seconds_compile = progress.seconds_compile
        if self._seconds is None:
            self._seconds = progress.seconds_train
        self._bar.update(progress.round - self._bar.n)
        spent, done = progress.seconds_train - self._seconds, progress.round - self._start
        if self._bar.disable and jax.process_index() == 0 and spent > 2 and time.monotonic() - self._said > 10:
            self._said = time.monotonic()
            rate = done / spent
            print(
                f"round {progress.round:,}/{self._rounds:,}: {self._latest}, {rate:.3g} rounds/s, "
                f"about {(self._rounds - progress.round) / rate:.0f} s left",
                file=sys.stderr,
            )

    def evaluation(self, latest: Evaluation) -> None:
        """After each evaluation."""
        self._latest = records.brief(latest)
        self._bar.set_postfix_str(self._latest)

    def close(self) -> None:
        """Leaves the last state standing."""
        self._bar.close()
