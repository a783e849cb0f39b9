"""Live progress of one run, on stderr."""

import sys
import time
from collections.abc import Callable

import jax
from tqdm import tqdm

from ddjax.experiments import records
from ddjax.experiments.units import duration
from ddjax.simulation import Evaluation, Progress

_SAY_EVERY = 10.0  # seconds between two lines if stderr is not a terminal


class Pace:
    """Estimate of the time left in a run, from the time that its rounds and evaluations have taken so far.

    Args:
      rounds: number of rounds of the whole run.
      eval_every: rounds between two evaluations.
      now: function that returns the time in seconds, from a clock that never goes back.
    """

    def __init__(self, rounds: int, eval_every: int, now: Callable[[], float] = time.monotonic):
        self._rounds, self._eval_every, self._now = rounds, eval_every, now
        self._first: tuple[float, Progress] | None = None  # after compilation
        self._spent, self._latest = 0.0, Progress(0, 0.0, 0.0)

    def follow(self, progress: Progress) -> None:
        """Record the progress at the end of a scan, which is a compiled loop over rounds."""
        self._first = self._first or (self._now(), progress)
        self._spent, self._latest = self._now() - self._first[0], progress

    def seconds_train(self) -> float:
        """Return the seconds of training rounds since the run started or was resumed."""
        return self._latest.seconds_train - self._first[1].seconds_train if self._first else 0.0

    def rate(self) -> float:
        """Compute the rounds per second of training; 0 before the first round."""
        if not self._first:
            return 0.0
        seconds = self.seconds_train()
        return (self._latest.round - self._first[1].round) / seconds if seconds > 0 else 0.0

    def left(self) -> float | None:
        """Compute the seconds of training, evaluating and saving that remain; `None` before the first round."""
        if not self._first or not (rate := self.rate()):
            return None
        begun, latest = self._first[1], self._latest
        # The evaluation that follows a scan is not over when the scan is reported.
        done = max(latest.round - 1, begun.round) // self._eval_every - begun.round // self._eval_every
        whole = -(-self._rounds // self._eval_every) - begun.round // self._eval_every
        evaluating = max(self._spent - self.seconds_train(), 0.0)
        each = evaluating / done if done else latest.seconds_evaluate
        return (self._rounds - latest.round) / rate + (whole - done) * each


class Display:
    """Live progress on stderr: one line that is redrawn in a terminal, otherwise a new line every ten seconds.

    Args:
      rounds: number of rounds of the whole run.
      eval_every: rounds between two evaluations.
      start: number of rounds that are already done.
    """

    def __init__(self, rounds: int, eval_every: int, start: int):
        self._bar = tqdm(
            total=rounds,
            initial=start,
            disable=not sys.stderr.isatty() or jax.process_index() > 0,  # processes may share a terminal
            dynamic_ncols=True,
            bar_format="round {n_fmt}/{total_fmt} |{bar}| {elapsed}{postfix}",
        )
        self._rounds, self._pace = rounds, Pace(rounds, eval_every)
        self._said, self._latest, self._ahead = time.monotonic(), "", ""
        self.seconds_compile, self.seconds_train = 0.0, 0.0

    def progress(self, progress: Progress) -> None:
        """Show the progress at the end of a scan."""
        self.seconds_compile = progress.seconds_compile
        self._pace.follow(progress)
        self.seconds_train = self._pace.seconds_train()
        left = self._pace.left()
        self._ahead = "" if left is None else f", {self._pace.rate():.3g} rounds/s, about {duration(left)} left"
        said = self._latest + self._ahead
        self._bar.set_postfix_str(said, refresh=False)
        self._bar.update(progress.round - self._bar.n)
        due = left is not None and time.monotonic() - self._said > _SAY_EVERY
        if self._bar.disable and jax.process_index() == 0 and due:
            self._said = time.monotonic()
            print(f"round {progress.round:,}/{self._rounds:,}: {said}", file=sys.stderr)

    def evaluation(self, latest: Evaluation) -> None:
        """Show an evaluation."""
        self._latest = records.brief(latest)
        self._bar.set_postfix_str(self._latest + self._ahead)

    def close(self) -> None:
        """Close the display, and leave its last state on the screen."""
        self._bar.close()
