"""Formats of sizes and times on the console."""

from collections.abc import Collection

_UNITS = {"TB": 1e12, "GB": 1e9, "MB": 1e6, "kB": 1e3, "bytes": 1.0}


def size(count: float, unit: str = "") -> str:
    """Format a number of bytes with three significant figures, in a decimal unit: TB, GB, MB, kB or bytes.

    Args:
      count: number of bytes.
      unit: the unit; by default, the unit that suits the number.
    """
    unit = unit or common_unit([count])
    figure = float(f"{count / _UNITS[unit]:.3g}")
    return f"{figure:,.12g} {'byte' if unit == 'bytes' and figure == 1 else unit}"


def common_unit(counts: Collection[float]) -> str:
    """Pick a unit in which the largest number of bytes is at least 1, and the others are at least 0.01 or zero."""
    most, least = float(f"{max(counts):.3g}"), min(filter(None, counts), default=0)
    return next((unit for unit, scale in _UNITS.items() if most >= scale and least >= scale / 100), "bytes")


def duration(seconds: float) -> str:
    """Format a duration in seconds, minutes or hours, whichever fits."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
