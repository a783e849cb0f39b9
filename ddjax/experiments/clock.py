"""Wall time of a command, divided into phases."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path


def process_age() -> float:
    """Return the seconds since this process started or, without /proc, the processor time that the process has used."""
    try:
        started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, ValueError, IndexError, AttributeError):
        return time.process_time()


class Clock:
    """Clock that divides wall time into phases, exactly one of which is active at any moment.

    Args:
      phases: names of the phases; the clock starts in the first phase.
      before: seconds already spent in the first phase.
      now: function that returns the time in seconds, from a clock that never goes back.
    """

    def __init__(self, phases: Sequence[str], before: float = 0.0, now: Callable[[], float] = time.monotonic):
        self._now, self._phase = now, phases[0]
        self._since = now() - before
        self._seconds = dict.fromkeys(phases, 0.0)

    def enter(self, phase: str) -> None:
        """End the active phase and begin another, which may have been active before."""
        now = self._now()
        self._seconds[self._phase] += now - self._since
        self._since, self._phase = now, phase

    def move(self, seconds: float, origin: str, target: str) -> None:
        """Move seconds from phase `origin` to phase `target`, but not more than `origin` had when it last ended."""
        seconds = min(seconds, self._seconds[origin])
        self._seconds[origin] -= seconds
        self._seconds[target] += seconds

    def seconds(self) -> dict[str, float]:
        """Return the seconds spent in each phase so far, and their sum as `total`."""
        self.enter(self._phase)
        parts = {phase: round(seconds, 3) for phase, seconds in self._seconds.items()}
        return parts | {"total": round(sum(parts.values()), 3)}
