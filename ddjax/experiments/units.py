"""Sizes and times as consoles show them."""

_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def size(count: float) -> str:
    """Write a number of bytes with three significant figures, in kB, MB, GB or TB of powers of 1000."""
    rounded = float(f"{count:.3g}")
    for scale, unit in _UNITS:
        if rounded >= scale:
            return f"{rounded / scale:.3g} {unit}"
    return f"{rounded:.3g} byte{'s' * (rounded != 1)}"


def duration(seconds: float) -> str:
    """Write a length of time in seconds, minutes or hours, whichever suits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
