"""Frontier: the score of each system at each number of bytes, with the settings that were picked for that number."""

from typing import Any

import numpy as np
import pandas as pd

from ddjax.experiments.looks import AXES, measured
from ddjax.experiments.reports.figures import Line, Panel, draw
from ddjax.learning import TASKS

_SYSTEM = ("algorithm", "consensus")  # settings that tell lines apart; other settings tell figures apart


def frontier(tested: pd.DataFrame, metric: str) -> dict[str, bytes]:
    """Draw the table of `selection.test_table`, with a figure per data set, number of devices and so on.

    A system that sends nothing is drawn as a horizontal line.

    Returns:
      File name → content of the file.
    """
    label, scale = measured(metric, ["test"]), AXES[metric][1]
    told = list(tested.columns[: list(tested.columns).index("bytes_budget")])
    system = [name for name in told if name in _SYSTEM] or told[:1]
    around = [name for name in told if name not in system]
    worst = f"{metric}_{TASKS[metric].worst}"
    made: dict[str, bytes] = {}
    for place in _places(tested, around):
        # A system that does not use a setting (`local` does not use the graph) is in the figures of all of the values.
        here = [tested[name].isna() | (tested[name] == value) for name, value in place.items()]
        rows = tested[pd.concat(here, axis=1).all(axis=1)] if here else tested
        systems = list(rows.groupby(system, dropna=False, sort=False))
        names = [", ".join(str(value) for value in key if pd.notna(value)) for key, _ in systems]
        end = "".join(f"-{name}={_short(value)}" for name, value in place.items())
        for column, said in ((f"{metric}_mean", f"mean {label}"), (worst, f"worst device's {label}")):
            lines = [_line(number, each, column, rows) for number, (_, each) in enumerate(systems)]
            name = f"frontier{'_worst' if column == worst else ''}{end}"
            while f"{name}.png" in made:  # two data files in different folders may have the same name
                name += "_"
            logarithmic = "x" * bool((rows["bytes_sent_total"] > 0).any()) + "y" * (scale == "log")
            panel = Panel(name, ("sent by all (MB)", said), lines, "", logarithmic)
            made |= {f"{name}.{kind}": content for kind, content in draw(panel, names).files.items()}
    return made


def _places(tested: pd.DataFrame, around: list[str]) -> list[dict[str, Any]]:
    """List the combinations of settings that have a figure: those that are not part of a larger combination."""
    if not around:
        return [{}]
    records = tested[around].drop_duplicates().to_dict("records")
    found = [{name: value for name, value in record.items() if pd.notna(value)} for record in records]
    return [one for one in found if not any(one.items() < other.items() for other in found)]


def _line(number: int, rows: pd.DataFrame, column: str, all: pd.DataFrame) -> Line:
    """Make the line of a system; for a system that sends nothing, a horizontal line as wide as the others."""
    rows = rows.drop_duplicates("bytes_sent_total").sort_values("bytes_sent_total")
    sent = rows["bytes_sent_total"].to_numpy(float) / 1e6
    if sent[-1] == 0 and (all["bytes_sent_total"] > 0).any():
        others = all.loc[all["bytes_sent_total"] > 0, "bytes_sent_total"] / 1e6
        sent, rows = np.array([others.min(), others.max()]), pd.concat([rows, rows])
    return Line(number, sent, rows[column].to_numpy(float), rows[f"± {column}"].to_numpy(float))


def _short(value: object) -> str:
    """Format a value as part of a file name."""
    return "".join(letter if letter.isalnum() else "_" for letter in str(value).rpartition("/")[2])
