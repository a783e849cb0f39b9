"""Formats of sizes and times on the console."""

_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def size(count: float) -> str:
    """Format a number of bytes with three significant figures, in decimal units: kB, MB, GB or TB."""
    rounded = float(f"{count:.3g}")
    for scale, unit in _UNITS:
        if rounded >= scale:
            return f"{rounded / scale:.3g} {unit}"
    return f"{rounded:.3g} byte{'s' * (rounded != 1)}"


def duration(seconds: float) -> str:
    """Format a duration in seconds, minutes or hours, whichever fits."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
