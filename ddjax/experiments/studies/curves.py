"""Curves of a study, and properties that are known before a curve is run."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ddjax.algorithms import ALGORITHMS
from ddjax.experiments.settings import Settings
from ddjax.experiments.sweeps.plan import Cell
from ddjax.learning import REGRESSION, infer_task
from ddjax.networks import Topology
from ddjax.schedules import schedule
from ddjax.theory import least_squares
from ddjax.theory.convergence import measure_distillation
from ddjax.types import Problem


class Curve(NamedTuple):
    """Measurements of one combination of settings, run with every seed.

    Attributes:
      label: settings that tell the curve from the others.
      cells: one cell per seed.
      rounds: `[T]` measured rounds.
      values: quantity → `[S, T]` values for `S` seeds.
      devices: quantity → `[S, T, N]` values of the devices.
      facts: facts about the curve for the summary, by name.
    """

    label: str
    cells: list[Cell]
    rounds: np.ndarray
    values: dict[str, np.ndarray]
    devices: dict[str, np.ndarray]
    facts: dict[str, Any]


def measure_of(cell: Cell) -> Callable | None:
    """Return the function that measures the convergence of a cell's algorithm; `None` if no function does."""
    return ALGORITHMS.parse(cell.settings.algorithm).entry.measure


def alike(cells: Sequence[Cell], name: str) -> list[list[int]]:
    """Group the indices of cells that differ only in the setting `name`."""
    groups: dict[str, list[int]] = {}
    for place, cell in enumerate(cells):
        groups.setdefault(str({**cell.values, name: None}), []).append(place)
    return list(groups.values())


def closed_form(cell: Cell, problem: Problem) -> bool:
    """Return whether the solution is known: for linear devices with squared loss and not too many coefficients."""
    models = {name.split(":")[0] for name in cell.settings.models.split("+")}
    unknowns = len(problem.private_indices) * (math.prod(problem.x.shape[1:]) + 1)
    return models == {"linear"} and infer_task(problem.y) is REGRESSION and unknowns <= least_squares.LARGEST


def weight(cell: Cell) -> float:
    """Return `ρ`, or 0 for devices that learn alone or average parameters."""
    return cell.settings.distillation_weight if measure_of(cell) is measure_distillation else 0.0


def whole(cell: Cell) -> bool:
    """Return whether each step uses all data."""
    distils = measure_of(cell) is measure_distillation
    return not cell.settings.batch_size and not (distils and cell.settings.reference_batch_size)


def reached(cell: Cell, distance: np.ndarray) -> bool:
    """Return whether a curve has reached the solution, to the precision of its cells.

    Args:
      cell: a cell of the curve.
      distance: relative distance of each seed's run to the solution.
    """
    return bool(np.mean(distance) < (1e-8 if cell.settings.precision == "float64" else 1e-4))


def plain(settings: Settings) -> bool:
    """Return whether soft decisions are mixed only by `W`."""
    return settings.mixing == "average" and not settings.compressor


def step_sizes(settings: Settings, name: str, rounds: np.ndarray) -> np.ndarray:
    """Compute the `learning_rate` or `consensus_step_size` in `[T]` rounds, as a fraction of its first value."""
    factor = schedule(getattr(settings, f"{name}_schedule")).step_sizes(1.0, settings.rounds)
    return np.broadcast_to(factor(rounds), rounds.shape)


def steady(cell: Cell, topology: Topology) -> bool:
    """Return whether every round applies the same linear map to linear devices, except that `ζ` may change.

    This holds only if each round takes one SGD step on all data with a constant step size, and mixes with the same `W`.
    """
    settings = cell.settings
    step = (settings.optimizer, settings.learning_rate_schedule, settings.local_steps, settings.local_epochs)
    return (
        step == ("sgd", "constant", 1, 0)
        and plain(settings)
        and whole(cell)
        and not (topology.network.changes or topology.network.loses_messages)
    )
