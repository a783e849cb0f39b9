"""Wall time of a command, divided into phases."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path


def process_age() -> float:
    """Measure the seconds since this process started; without /proc, take the processor time that it has used."""
    try:
        started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, ValueError, IndexError, AttributeError):
        return time.process_time()


class Clock:
    """Wall time by phase. At each moment one phase is on, so the phases add up to the whole.

    Args:
      phases: names of the phases; the first is on.
      before: seconds of the first phase that have passed already.
      now: the time in seconds, on a clock that never goes back.
    """

    def __init__(self, phases: Sequence[str], before: float = 0.0, now: Callable[[], float] = time.monotonic):
        self._now, self._phase = now, phases[0]
        self._since = now() - before
        self._seconds = dict.fromkeys(phases, 0.0)

    def enter(self, phase: str) -> None:
        """End the phase that is on and begin another, which may have been on before."""
        now = self._now()
        self._seconds[self._phase] += now - self._since
        self._since, self._phase = now, phase

    def move(self, seconds: float, origin: str, target: str) -> None:
        """Count seconds of one phase to another, at most as many as the first took before it was left."""
        seconds = min(seconds, self._seconds[origin])
        self._seconds[origin] -= seconds
        self._seconds[target] += seconds

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each phase up to now, and their sum as `total`."""
        self.enter(self._phase)
        parts = {phase: round(seconds, 3) for phase, seconds in self._seconds.items()}
        return parts | {"total": round(sum(parts.values()), 3)}
