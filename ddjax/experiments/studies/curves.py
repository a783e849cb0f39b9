"""The curves of a study, and what is known about each before it is run."""

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
    """One combination of settings, over its seeds.

    Attributes:
      label: what tells it from the others.
      cells: one a seed.
      rounds: `[T]` at which it was measured.
      values: name → `[S, T]`.
      devices: name → `[S, T, N]`.
      facts: what is known of it, for the summary.
    """

    label: str
    cells: list[Cell]
    rounds: np.ndarray
    values: dict[str, np.ndarray]
    devices: dict[str, np.ndarray]
    facts: dict[str, Any]


def measure_of(cell: Cell) -> Callable | None:
    """What theory measures of the cell's algorithm; `None` where it measures nothing."""
    return ALGORITHMS.parse(cell.settings.algorithm).entry.measure


def alike(cells: Sequence[Cell], name: str) -> list[list[int]]:
    """Indices of the cells that differ in one setting alone."""
    groups: dict[str, list[int]] = {}
    for place, cell in enumerate(cells):
        groups.setdefault(str({**cell.values, name: None}), []).append(place)
    return list(groups.values())


def closed_form(cell: Cell, problem: Problem) -> bool:
    """Whether the solution is known: linear devices with squared loss and squared distance, not too many."""
    models = {name.split(":")[0] for name in cell.settings.models.split("+")}
    unknowns = len(problem.private_indices) * (math.prod(problem.x.shape[1:]) + 1)
    return models == {"linear"} and infer_task(problem.y) is REGRESSION and unknowns <= least_squares.LARGEST


def weight(cell: Cell) -> float:
    """`ρ`, which devices alone and those that average parameters do not have."""
    return cell.settings.distillation_weight if measure_of(cell) is measure_distillation else 0.0


def whole(cell: Cell) -> bool:
    """Whether all data are used at once."""
    distils = measure_of(cell) is measure_distillation
    return not cell.settings.batch_size and not (distils and cell.settings.reference_batch_size)


def reached(cell: Cell, distance: np.ndarray) -> bool:
    """Whether the solution counts as reached, to what its precision allows, given how far the seeds are from it."""
    return bool(np.mean(distance) < (1e-8 if cell.settings.precision == "float64" else 1e-4))


def plain(settings: Settings) -> bool:
    """Whether soft decisions are mixed by `W` and nothing else."""
    return settings.mixing == "average" and not settings.compressor


def step_sizes(settings: Settings, name: str, rounds: np.ndarray) -> np.ndarray:
    """`[T]` `learning_rate` or `consensus_step_size` in these rounds, as a part of its first."""
    factor = schedule(getattr(settings, f"{name}_schedule")).step_sizes(1.0, settings.rounds)
    return np.broadcast_to(factor(rounds), rounds.shape)


def steady(cell: Cell, topology: Topology) -> bool:
    """Whether a round is one and the same linear map of linear devices, but for `ζ`: a constant SGD step on all data,
    mixing by one `W` and nothing else."""
    settings = cell.settings
    step = (settings.optimizer, settings.learning_rate_schedule, settings.local_steps, settings.local_epochs)
    return (
        step == ("sgd", "constant", 1, 0)
        and plain(settings)
        and whole(cell)
        and not (topology.network.changes or topology.network.loses_messages)
    )
