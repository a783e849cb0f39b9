"""Look of all figures, independent of a display, of TeX and of a user's own style.

Other files import Matplotlib from this file, which can load it even if the user's configuration is broken.
"""

import contextlib
import os
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

try:
    import matplotlib
except (ValueError, OSError):  # MPLBACKEND names a module that is not installed, or a matplotlibrc cannot be read
    for _name in [_name for _name in sys.modules if _name.split(".")[0] == "matplotlib"]:
        del sys.modules[_name]  # loaded in part
    _backend = os.environ.pop("MPLBACKEND", None)
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            Path("matplotlibrc").touch()  # Matplotlib reads this file before any other
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
    "looks",
    "measured",
    "style",
    "ticker",
]

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES: tuple[Any, ...] = ("-", "--", "-.", (0, (3, 1, 1, 1, 1, 1)))  # one per pass through the colours
# The systems of each colour, in the order of styles. Systems that are often compared differ in colour.
_SYSTEMS = (
    ("distillation", "fedct_neighbors", "idkd", "def_kt"),
    ("dsgd", "exact_diffusion", "gradient_tracking", "local_dsgd"),
    ("fedavg", "scaffold", "fedprox", "dynamic_averaging"),
    ("choco", "push_sum", "relaysgd", "corlsr"),
    ("quasi_global_momentum", "gossip", "co_regularization"),
    ("server_distillation", "fedmd", "ds_fl", "fedct"),
    ("local", "centralized", "kt_pfl"),
)
_OF_SYSTEM = {
    name: color + len(COLORS) * style for color, names in enumerate(_SYSTEMS) for style, name in enumerate(names)
}
AXES = {"accuracy": ("accuracy", "linear"), "mse": ("MSE", "log")}  # metric → name and scale


def looks(curves: Sequence[tuple[str, str]]) -> list[int]:
    """Choose a look for each curve, as a number: look `k` has colour `k % 7` and style `k // 7`.

    A system has the same look in every figure. Of several curves of one system, the curve with the shortest
    description has that look. The other curves get unused looks, which depend only on their descriptions if
    possible, so that a curve usually has the same look in every figure.

    Args:
      curves: the system of each curve, and a description of its settings, which is empty for the default settings.
    """
    order = sorted(range(len(curves)), key=lambda curve: (len(curves[curve][1]), curves[curve], curve))
    found: dict[int, int] = {}
    for curve in order:
        look = _OF_SYSTEM.get(curves[curve][0])
        if look is not None and look not in found.values():
            found[curve] = look
    for curve in order:
        if curve not in found:
            start = zlib.crc32("\0".join(curves[curve]).encode()) % len(COLORS)
            rows = range(0, len(COLORS) * len(STYLES), len(COLORS))
            free = (row + (start + step) % len(COLORS) for row in rows for step in range(len(COLORS)))
            found[curve] = next((look for look in free if look not in found.values()), start)
    return [found[curve] for curve in range(len(curves))]


def measured(metric: str, evaluated_on: Iterable[str]) -> str:
    """Name a metric with the kinds of examples on which it was measured, as in `test accuracy`."""
    return f"{' and '.join(sorted(set(evaluated_on)))} {AXES[metric][0]}"


@contextlib.contextmanager
def style(changes: Mapping[Any, Any] | None = None) -> Iterator[None]:
    """Use Matplotlib's own defaults while figures are made and saved; restore the user's style afterwards.

    Args:
      changes: parameters of Matplotlib that differ from the defaults.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(changes or {})
        yield


def literal(text: str) -> str:
    """Escape `$` in a label, so that it does not begin a formula."""
    return text.replace("$", r"\$")


def log_ticks(axis: Axis) -> None:
    """Set few ticks with short labels, for any range."""
    low, high = axis.get_view_interval()
    narrow = ticker.MaxNLocator(4) if high < 4 * low else ticker.LogLocator(subs=(1, 2, 5))
    axis.set_major_locator(narrow if high < 100 * low else ticker.LogLocator())
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(ticker.NullFormatter())
