"""Report on sweeps: an HTML page that needs no other file, and the same figures as files for papers.

    python scripts/report.py SWEEP_DIR... --output=FOLDER

The command writes into --output: report.html, which needs no other file and no network, and each figure as PDF and PNG.
A *curve* is one combination of the settings that vary, except seeds and the x axis. A figure shows the mean over the
curve's seeds with its 95 % t-interval. A curve's name leaves out each flag whose value is determined by x and the flags
already in the name. An example is a flag that --zip pairs with x. A curve that does not use x is drawn at each value of
x. Diverged cells are left out of all means.
"""

import dataclasses
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ddjax.errors import InputError
from ddjax.experiments.accuracies import parse_accuracies
from ddjax.experiments.fields import fields, setting
from ddjax.experiments.files import replace
from ddjax.experiments.flags import Given, run
from ddjax.experiments.reports.curves import curves, pick_target, reach, summarize
from ddjax.experiments.reports.figures import draw
from ddjax.experiments.reports.networks import networks
from ddjax.experiments.reports.page import MARK, page
from ddjax.experiments.reports.panels import measures_of, panels
from ddjax.experiments.reports.read import read

_report = partial(setting, section="Report")


@dataclasses.dataclass(frozen=True)
class ReportSettings:
    """Settings of a report."""

    output: str = _report("", "Folder for the report, new or with an earlier report; default SWEEP_DIR/report.")
    target_accuracy: str = _report(
        "", "Mean accuracies, as in 0.6,0.7, up to which bytes are counted; by default, those of the sweep."
    )
    x: str = _report(
        "", "Numeric flag on the x axis; by default, devices if it has several values, else the first such flag."
    )


def _former(output: Path) -> set[str]:
    """Return the names of the files of an earlier report in the folder.

    Raises:
      InputError: the path is not a folder, or the folder holds other files.
    """
    if not output.exists():
        return set()
    if not output.is_dir():
        raise InputError(f"output {str(output)!r} is a file")
    there = {path.name for path in output.iterdir() if not path.name.startswith(".")}
    index = output / "report.html"
    text = index.read_text(encoding="utf-8") if index.is_file() else ""
    own = {index.name, *re.findall(r'<a href="([^"/]+)">', text)} if MARK in text else set()
    if foreign := sorted(there - own):
        raise InputError(f"output {str(output)!r} holds {foreign[0]!r}, which no report wrote; name a new folder")
    return there


def report(given: Given) -> None:
    """Write a report on the sweeps in the folders that the command line names."""
    settings, arguments = given.take(ReportSettings), given.arguments
    if not arguments or (len(arguments) > 1 and not settings.output):
        raise InputError(
            "name the folder of a sweep, or several folders and --output: report.py SWEEP_DIR... --output=FOLDER"
        )
    folders = [Path(argument).expanduser() for argument in arguments]
    output = Path(settings.output).expanduser() if settings.output else folders[0] / "report"
    goals = parse_accuracies(settings.target_accuracy)
    sweep = read(folders)
    found = curves(sweep, settings.x)
    former = _former(output)
    if goals and sweep.metric != "accuracy":
        raise InputError(
            "--target_accuracy is only for classification, but these sweeps are regression tasks; leave the flag out"
        )
    goals = goals or sweep.targets
    picked = not goals and sweep.metric == "accuracy"
    if picked:
        goals = pick_target(found.cells)
    found = reach(sweep, found, goals)
    counts = ", ".join(f"{count} {status}" for status, count in sweep.cells["status"].value_counts().items())
    print(f"{len(sweep.cells)} cells, {counts}: {sweep.metric}" + (f" against {found.x}" if found.x else ""))
    table = summarize(found.cells, [*measures_of(sweep), "megabytes", *(f"to {goal:g}" for goal in goals)])
    drawn = [(panel, draw(panel, found.labels, found.looks)) for panel in panels(sweep, found, table, goals, picked)]
    if beside := networks(sweep, found):
        drawn.append(beside)
    title = f"Sweep {', '.join(folder.resolve().name for folder in folders)}"
    text = page(sweep, found, table, goals, drawn, title)
    files = {f"{panel.name}.{end}": content for panel, drawing in drawn for end, content in drawing.files.items()}
    output.mkdir(parents=True, exist_ok=True)
    # In this order, the page always names all files in the folder, so that an interrupted report can be repeated.
    for name in former - {"report.html", *files}:
        (output / name).unlink()
    replace(output / "report.html", text)
    for name, content in files.items():
        replace(output / name, content)
    print(f"written to {output / 'report.html'}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with the arguments of the process, or with `argv`, and return its exit code."""
    summary = "Write a report on sweeps: python scripts/report.py SWEEP_DIR... --name=value …"
    return run(report, fields(ReportSettings), summary, argv, arguments="SWEEP_DIR...")
