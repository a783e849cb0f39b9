"""Runs of the seeds of a curve, with their measurements."""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from ddjax.errors import InputError
from ddjax.experiments import execution
from ddjax.experiments.experiment import Experiment, build
from ddjax.experiments.settings import Settings
from ddjax.experiments.studies.curves import Curve, closed_form, measure_of, plain, steady, step_sizes, weight
from ddjax.experiments.studies.derive import form
from ddjax.experiments.studies.laws import theory
from ddjax.experiments.studies.settings import StudySettings
from ddjax.experiments.sweeps.plan import Cell
from ddjax.experiments.sweeps.progress import Display
from ddjax.experiments.usage import used
from ddjax.mixing.average import weighted_average
from ddjax.mixing.server import server
from ddjax.theory import least_squares, least_squares_rates, rates
from ddjax.theory.convergence import coefficients, measure_averaging, measure_distillation
from ddjax.theory.examination import examine_devices
from ddjax.types import Problem

Values = dict[str, np.ndarray]


def run_curve(
    cells: Sequence[Cell], label: str, derived: dict[str, float], study: StudySettings, display: Display
) -> Curve:
    """Run the seeds of a curve and measure them.

    Args:
      cells: one cell per seed.
      label: label of the curve.
      derived: settings that were derived, by name.
      study: settings of the study.
      display: display that shows each seed; its forecast lists the curve under the name of the first cell.
    """
    settings = cells[0].settings
    facts: dict[str, Any] = {"derived": derived, "endpoints": [], "spectral_gap": [], "neighbors": []}
    facts["mixing_decay"] = None
    step = f"{settings.rounds:,} rounds, step size {settings.learning_rate:.3g}"
    points = rounds_measured(settings, study.points)
    values: dict[str, list[np.ndarray]] = {}
    devices: dict[str, list[np.ndarray]] = {}
    first: Any = None
    for cell in cells:
        display.begin(cell, cells[0].name, fresh=first is None)
        # On several shards, hyperparameters are constants of the program, and their defaults may depend on the graph.
        built = build(cell.settings, like=first and first.simulation if jax.device_count() == 1 else None)
        if first is None:  # all seeds share one function and one population, for which the program is compiled
            first, measure = built, _measure(cell, built, closed_form(cell, built.problem))
        with execution.precision(cell.settings):
            key, simulation = jax.random.key(cell.settings.seed), built.simulation
            state = simulation.init(key)
            simulation.compile_record(key, state, points, measure)
            display.train(cell)
            begun = time.monotonic()
            state, recorded = simulation.record(key, state, points, measure)
            one, apart = _values(cell, built, points, recorded, facts)
            trained = time.monotonic() - begun
            if study.endpoints:
                kind = measure_of(cell)
                assert kind is not None
                ends = examine_devices(first.population, state, built.problem, kind, study.endpoints)
                facts["endpoints"] += [{"seed": cell.settings.seed, **end._asdict()} for end in ends]
        for rows, fresh in ((values, one), (devices, apart)):
            for name, value in fresh.items():
                rows.setdefault(name, []).append(value)
        if "topology" in used(settings):
            matrices = built.topology.matrices
            facts["spectral_gap"].append(built.topology.spectral_gap)
            facts["neighbors"].append(degrees(matrices))
            network = built.topology.network
            if cell is cells[0] and not (network.draws or network.loses_messages):
                facts["mixing_decay"] = rates.mixing_decay(matrices)
        display.end(cell, step, trained)
    if None in facts["spectral_gap"]:
        facts["spectral_gap"] = []
    facts["theory"] = theory(cells[0], facts, points, window(points, study.window))
    stacked, each = ({name: np.array(rows) for name, rows in kind.items()} for kind in (values, devices))
    return Curve(label, list(cells), points, stacked, each, facts)


def _values(
    cell: Cell, built: Experiment, points: np.ndarray, recorded: tuple, facts: dict[str, Any]
) -> tuple[Values, Values]:
    """Add to `facts`, and return what was measured with one seed: values for all devices, and values per device."""
    quantities, found_coefficients = recorded
    found = {name: np.asarray(value, np.float64) for name, value in quantities._asdict().items()}
    mean = found["gradient_norm_sq"].mean(-1)
    steps = step_sizes(cell.settings, "learning_rate", points)
    one: Values = {
        "objective": found.pop("objective"),
        "gradient_norm_sq_mean": mean,
        "gradient_norm_sq_max": found["gradient_norm_sq"].max(-1),
        "gradient_norm_sq_running": rates.running_average(points, mean, steps),
        "own_gradient_norm_sq_mean": found["own_gradient_norm_sq"].mean(-1),
        "consensus_error": found["consensus_error"].mean(-1),
        "distance_to_solution": np.full(len(points), np.nan),
    }
    facts["solved"], facts["consensus_step_size"] = found_coefficients is not None, built.consensus_step_size
    facts["loses_messages"] = built.topology.network.loses_messages
    if facts["solved"]:
        one["distance_to_solution"], known = against(cell, built, np.asarray(found_coefficients))
        for name, number in known.items():
            facts.setdefault(name, []).append(number)
    return one, found


def rounds_measured(settings: Settings, points: int) -> np.ndarray:
    """Choose at most `points` rounds, evenly spaced on a logarithmic scale."""
    return np.unique(np.round(np.geomspace(1, settings.rounds, points)).astype(int))


def degrees(matrices: Sequence[Any]) -> list[int]:
    """Count the neighbours from which each device receives, in any round of a cycle or any draw of a random graph."""
    heard = sum(abs(matrix) for matrix in matrices) != 0
    return (heard.sum(axis=1) - heard.diagonal()).tolist()


def _measure(cell: Cell, built: Experiment, solved: bool) -> Callable:
    """Make the function that measures a state, for `Simulation.record`."""
    settings = cell.settings
    kind: Any = measure_of(cell)
    if kind is measure_distillation:
        mixer = None  # the graph, memory and draws of a past round are not available
        if settings.algorithm == "server_distillation" or (settings.mixing == "server" and not settings.compressor):
            mixer = server()
        elif plain(settings) and not (built.topology.network.draws or built.topology.network.loses_messages):
            mixer = weighted_average()
        kind = partial(kind, mixer=mixer)

    def measure(state: Any, problem: Problem) -> tuple:
        return kind(built.population, state, problem), coefficients(state.devices) if solved else None

    return measure


def against(cell: Cell, built: Experiment, coefficients: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
    """Compute distances to the solution, and predictions for a run with constant steps on all data.

    The predictions are `predicted_distance`, the distance at which devices come to rest, and, if they come to rest at
    the solution, `predicted_rate`, the logarithm of the factor by which the distance shrinks per round.
    """
    settings = cell.settings
    equations, rho = least_squares.normal_equations(built.problem, coefficients.shape[-1]), weight(cell)
    if measure_of(cell) is measure_averaging:
        directions = least_squares.determined_together(equations)
        return least_squares.distance(coefficients, least_squares.averaged(equations), directions), {}
    directions = least_squares.determined(equations, rho)
    solution = least_squares.co_regularized(equations, rho)
    distances = least_squares.distance(coefficients, solution, directions)
    falling = settings.consensus == "gradient" and settings.consensus_step_size_schedule != "constant"
    if settings.algorithm != "distillation" or falling or not steady(cell, built.topology):
        return distances, {}
    consensus, matrix, zeta = form(cell, built)
    if consensus == "tracking":
        factor = least_squares_rates.factor(equations, rho, settings.learning_rate, consensus, matrix)
        return distances, {"predicted_distance": 0.0, "predicted_rate": math.log(factor)}
    follows = least_squares.follows(consensus, matrix, zeta)
    rest = least_squares.resting_point(equations, rho, follows)
    return distances, {"predicted_distance": float(least_squares.distance(rest[None], solution, directions)[0])}


def window(rounds: np.ndarray, given: str) -> tuple[int, int]:
    """Return the first and the last round of the fits, from `--window`; by default, for the last nine tenths."""
    last = int(rounds[-1])
    if not given:
        return max(last // 10, 1), last
    first, _, end = given.partition(":")
    if not (first.isdecimal() and end.isdecimal() and 0 < int(first) < int(end)):
        raise InputError(f"window must be FIRST:LAST with 1 ≤ FIRST < LAST, in rounds, as in 100:1000, got {given!r}")
    return int(first), int(end)
