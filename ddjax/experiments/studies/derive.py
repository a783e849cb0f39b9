"""Derivation of step sizes and numbers of rounds from the curvature of the problem and the spectrum of the graph."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ddjax.errors import InputError
from ddjax.experiments.console import data_lines
from ddjax.experiments.experiment import Experiment, build
from ddjax.experiments.studies.curves import closed_form, steady, weight
from ddjax.experiments.sweeps import estimates
from ddjax.experiments.sweeps.forecast import Work
from ddjax.experiments.sweeps.plan import Cell
from ddjax.theory import least_squares, least_squares_rates, rates

_MOST_ROUNDS = 10_000_000  # largest derived number of rounds that is run


def prepare(cells: Sequence[Cell], peak: float) -> tuple[list[Cell], dict[str, float], list[str], Work]:
    """Build each cell of a curve once, to find mistakes early, and derive the step size and the rounds if they are 0.

    Args:
      cells: one cell per seed.
      peak: floating-point operations per second of a matrix product, for the estimates.

    Returns:
      The cells, the derived settings by name, lines for the console that describe the data, and estimates of the time
      that the cells take.

    Raises:
      InputError: a setting is wrong, or nothing can be derived from the settings.
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
                f"--{' and --'.join(wanted)} can be derived only for distillation or local, with linear devices (at "
                f"most {least_squares.LARGEST} coefficients in all), squared loss, one sgd step of constant size on "
                "all data per round, uncompressed averaging and a graph that does not change; give numbers"
            )
        if "rounds" in wanted and settings.consensus_step_size_schedule != "constant":
            raise InputError(
                "--rounds cannot be derived if --consensus_step_size_schedule is not constant; give a number"
            )
        equations, rho = least_squares.normal_equations(built.problem, 1), weight(cell)
        curvatures, pull = least_squares_rates.curvatures(equations, rho)
        consensus, matrix, zeta = form(cell, built)
        steps.append(step or rates.step_size(curvatures, pull, np.linalg.eigvals(matrix), consensus, zeta))
        if "rounds" in wanted:
            factor = least_squares_rates.factor(equations, rho, steps[-1], consensus, matrix, zeta)
            needed = math.log(1e-10 if settings.precision == "float64" else 1e-5) / math.log(factor)
            if needed > _MOST_ROUNDS:
                raise InputError(
                    f"{cell.label} needs about {needed:,.0f} rounds at step size {steps[-1]:.3g}, because the data "
                    "and the graph are ill-conditioned; give --rounds"
                )
            rounds.append(math.ceil(needed))
    derived = {"learning_rate": min(steps, default=0.0), "rounds": max(rounds, default=0)}
    found: dict[str, Any] = {name: derived[name] for name in wanted}
    filled = [cell._replace(settings=dataclasses.replace(cell.settings, **found)) for cell in cells]
    settings = filled[-1].settings
    parts = estimates.parts(estimates.operations(built._replace(settings=settings)), settings.rounds, peak)
    return filled, found, lines, Work(len(cells), parts, estimates.compiling(built))


def form(cell: Cell, built: Experiment) -> tuple[str, np.ndarray, float]:
    """Return the form of consensus, `W` and `ζ`; `local` is treated as `neighbors` with weight 0 for the targets."""
    consensus = cell.settings.consensus if cell.settings.algorithm == "distillation" else "neighbors"
    return consensus, built.topology.matrices[0].toarray(), built.consensus_step_size or 0.0
