"""Step sizes and numbers of rounds that follow from the curvature of the problem and the spectrum of the graph."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ddjax.errors import InputError
from ddjax.experiments.console import data_lines
from ddjax.experiments.experiment import Experiment, build
from ddjax.experiments.studies.curves import closed_form, steady, weight
from ddjax.experiments.sweeps.estimates import operations
from ddjax.experiments.sweeps.plan import Cell
from ddjax.theory import least_squares, least_squares_rates, rates

_MOST_ROUNDS = 10_000_000  # derived, that are run unasked


def prepare(cells: Sequence[Cell]) -> tuple[list[Cell], dict[str, float], list[str], float]:
    """Build each cell of a curve once, so that mistakes show, and fill in step size and rounds where they are 0.

    Returns:
      The cells, the derived settings by name, a description of their data in lines for the console, and the estimated
      floating-point operations of one cell.

    Raises:
      InputError: settings that are wrong, or from which nothing can be derived.
    """
    wanted = [name for name in ("learning_rate", "rounds") if not getattr(cells[0].settings, name)]
    steps, rounds, lines = [], [], []
    for cell in cells:
        settings, step = cell.settings, cell.settings.learning_rate
        built = build(dataclasses.replace(settings, learning_rate=step or 1.0))
        lines += data_lines(built)
        if not wanted:
            continue
        solved = settings.algorithm in ("distillation", "local") and closed_form(cell, built.problem)
        if not (solved and steady(cell, built.topology)):
            raise InputError(
                f"--{' and --'.join(wanted)} can be derived for distillation or local, at most "
                f"{least_squares.LARGEST} coefficients of linear devices, squared loss, one constant sgd step on all "
                "data, plain mixing and a graph that stays; give numbers"
            )
        if "rounds" in wanted and settings.consensus_step_size_schedule != "constant":
            raise InputError("--rounds are not derived where zeta falls; give a number")
        equations, rho = least_squares.normal_equations(built.problem, 1), weight(cell)
        curvatures, pull = least_squares_rates.curvatures(equations, rho)
        consensus, matrix, zeta = form(cell, built)
        steps.append(step or rates.step_size(curvatures, pull, np.linalg.eigvals(matrix), consensus, zeta))
        if "rounds" in wanted:
            factor = least_squares_rates.factor(equations, rho, steps[-1], consensus, matrix, zeta)
            needed = math.log(1e-10 if settings.precision == "float64" else 1e-5) / math.log(factor)
            if needed > _MOST_ROUNDS:
                raise InputError(
                    f"{cell.label} needs about {needed:,.0f} rounds at step size {steps[-1]:.3g}, so ill-conditioned "
                    "are data and graph; give --rounds"
                )
            rounds.append(math.ceil(needed))
    derived = {"learning_rate": min(steps, default=0.0), "rounds": max(rounds, default=0)}
    found: dict[str, Any] = {name: derived[name] for name in wanted}
    filled = [cell._replace(settings=dataclasses.replace(cell.settings, **found)) for cell in cells]
    return filled, found, lines, operations(built._replace(settings=filled[-1].settings))


def form(cell: Cell, built: Experiment) -> tuple[str, np.ndarray, float]:
    """How devices come to consensus: form, `W`, `ζ`; devices alone are like neighbors that are not listened to."""
    consensus = cell.settings.consensus if cell.settings.algorithm == "distillation" else "neighbors"
    return consensus, built.topology.matrices[0].toarray(), built.consensus_step_size or 0.0
