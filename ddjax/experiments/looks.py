"""The look of all figures, which neither a display, nor TeX, nor a user's own style has a part in.

Whoever needs Matplotlib takes it from here, since this file can import it where others cannot.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

try:
    import matplotlib
except (ValueError, OSError):  # MPLBACKEND names a module that is not installed, or a matplotlibrc cannot be read
    for _name in [_name for _name in sys.modules if _name.split(".")[0] == "matplotlib"]:
        del sys.modules[_name]  # half loaded
    _backend = os.environ.pop("MPLBACKEND", None)
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            Path("matplotlibrc").touch()  # read before any other
            import matplotlib
    finally:
        if _backend is not None:
            os.environ["MPLBACKEND"] = _backend
from matplotlib import cm, colormaps, colors, ticker
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

__all__ = [
    "AXES",
    "COLORS",
    "STYLES",
    "Artist",
    "Axes",
    "Axis",
    "Figure",
    "FigureCanvasBase",
    "Line2D",
    "LineCollection",
    "cm",
    "colormaps",
    "colors",
    "literal",
    "measured",
    "style",
    "ticker",
]

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.")  # after the colours have been through
AXES = {"accuracy": ("accuracy", "linear"), "mse": ("MSE", "log")}  # metric → name and scale


def measured(metric: str, evaluated_on: Iterable[str]) -> str:
    """A metric with the kinds of examples that it was measured on, as in `test accuracy`."""
    return f"{' and '.join(sorted(set(evaluated_on)))} {AXES[metric][0]}"


@contextlib.contextmanager
def style(changes: Mapping[Any, Any] | None = None) -> Iterator[None]:
    """Matplotlib's own defaults, to make and save figures in; a user's style is back afterwards.

    Args:
      changes: parameters of Matplotlib that differ from them.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(changes or {})
        yield


def literal(text: str) -> str:
    """A label that shows `$` as it is, instead of a formula."""
    return text.replace("$", r"\$")
