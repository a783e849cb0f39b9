"""Studies of convergence: the quantities of the theory are measured exactly at log-spaced rounds, and rates are fitted.

    python scripts/convergence.py --topology=ring,directed_ring --consensus=tracking --precision=float64

A study takes the flags of train.py, as comma-separated lists like those of sweep.py. A *curve* is one combination of
flags, run with every seed. The study writes into --output_dir: convergence.csv (a row per curve, seed and round),
devices.csv (a row per curve, seed, round and device), summary.json, summary.md, and figures (PNG and PDF).
"""

import datetime
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ddjax.errors import InputError
from ddjax.experiments import execution, records
from ddjax.experiments.drawing import optional
from ddjax.experiments.files import Claim
from ddjax.experiments.flags import Given, run
from ddjax.experiments.settings import Settings
from ddjax.experiments.studies import page
from ddjax.experiments.studies.curves import Curve, alike, reached
from ddjax.experiments.studies.derive import prepare
from ddjax.experiments.studies.fits import dependence, slopes
from ddjax.experiments.studies.measure import rounds_measured, run_curve, window
from ddjax.experiments.studies.settings import (
    DEFAULTS,
    StudySettings,
    check_algorithm,
    study_fields,
    whole_settings,
)
from ddjax.experiments.sweeps import estimates, plan
from ddjax.experiments.sweeps.forecast import Forecast
from ddjax.experiments.sweeps.plan import LISTED, Cell, SweepSettings
from ddjax.experiments.sweeps.progress import Display


def planned_cells(given: Given) -> list[Cell]:
    """Make the cells of a study: those of a sweep with other defaults."""
    lists = DEFAULTS | {name: given.values[name] for name in LISTED if name in given.present}
    cells = plan.cells(lists, whole_settings(given.values), given.take(SweepSettings))
    for cell in cells:
        check_algorithm(cell.settings.algorithm)
    return cells


def _summary(found: Sequence[Curve], planned: int, study: StudySettings) -> dict[str, Any]:
    """Make the content of `summary.json`."""
    return {
        "command": shlex.join(["python", *sys.argv]),
        "curves_planned": planned,
        **records.environment(),
        "curves": [
            {
                "label": curve.label,
                "flags": curve.cells[0].settings.values(),
                "seeds": [cell.settings.seed for cell in curve.cells],
                "window": window(curve.rounds, study.window),
                "final": {name: values[:, -1].tolist() for name, values in curve.values.items()},
                "reached": reached(curve.cells[0], curve.values["distance_to_solution"][:, -1]),
                "slopes": slopes(curve, window(curve.rounds, study.window)),
                **curve.facts,
            }
            for curve in found
        ],
        "dependence": dependence(found),
    }


def study(given: Given) -> int:
    """Run the study that the command line describes, and return the exit code."""
    settings = given.take(StudySettings)
    settings.check()
    cells = planned_cells(given)
    claim = Claim(settings.output_dir, f"runs/convergence-{datetime.datetime.now():%Y%m%d-%H%M%S}")
    try:
        precision = plan.process_precision(cells)
        execution.start(Settings(host_devices=given.values["host_devices"] or 1, precision=precision))
        return _study(settings, cells, claim.path)
    finally:
        claim.release()


def _study(settings: StudySettings, cells: Sequence[Cell], folder: Path) -> int:
    """Run cells, write the results into a folder, and return the exit code."""
    peak = estimates.peak(jax.devices()[0])
    curves = [prepare([cells[place] for place in places], peak) for places in alike(cells, "seed")]
    for group, *_ in curves:
        points = rounds_measured(group[0].settings, settings.points)
        first, last = window(points, settings.window)
        if ((points >= first) & (points <= last)).sum() < 2:
            raise InputError(
                f"fits need two measured rounds from {first} to {last}; increase --points or give another --window"
            )
    for line in dict.fromkeys(line for _, _, lines, _ in curves for line in lines):
        print(f"  {line}", flush=True)
    found: list[Curve] = []
    with Display(len(cells), 0, Forecast({group[0].name: work for group, _, _, work in curves})) as display:
        for group, known, *_ in curves:
            label = ", ".join(part for part in group[0].label.split(", ") if not part.startswith("seed="))
            found.append(run_curve(group, label or group[0].settings.algorithm, known, settings, display))
            page.tables(folder, found, summary := _summary(found, len(curves), settings))
    print("drawing figures", flush=True)
    with optional("convergence.py", "the figures", f"all numbers are in {folder}"):
        page.page(folder, found, summary)
    print("", *map(page.in_short, summary["curves"]), "", sep="\n")
    print(f"written to {folder}; summary.md has the tables and the figures")
    lost = [curve.label for curve in found if not np.isfinite(curve.values["objective"][:, -1]).all()]
    if lost:
        print(f"convergence.py: these curves diverged; try a smaller step size: {'; '.join(lost)}", file=sys.stderr)
    return 3 if lost else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with the arguments of the process, or with `argv`, and return its exit code."""
    text = "Measure convergence and compare it with theory: python scripts/convergence.py --name=value,value …"
    return run(study, study_fields(), text, argv)
