"""Studies of convergence: what the theory speaks of, measured exactly at log-spaced rounds, with fitted rates.

    python scripts/convergence.py --topology=ring,directed_ring --consensus=tracking --precision=float64

Takes the flags of train.py, as comma lists like sweep.py; a *curve* is one combination of them, over its seeds. Leaves
in --output_dir convergence.csv (a row per curve, seed and round), devices.csv (one per device as well), summary.json,
summary.md, and figures (PNG and PDF).
"""

import datetime
import math
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

import convergence_report
import execution
import experiment
import jax
import numpy as np
import options
import plan
import records
from absl import flags
from convergence_data import MEASURES, Curve, alike, closed_form, dependence, slopes, steady, theory, weight
from plan import Cell
from tqdm import tqdm

import ddjax
from ddjax import convergence, least_squares, rates, schedules
from ddjax.types import InputError

FLAGS = flags.FlagValues()
# Of train.py, where nothing is said: linear least squares on all data at once.
_DEFAULTS = {
    "dataset": "synthetic_regression",
    "models": "linear",
    "devices": "16",
    "distillation_weight": "1",
    "batch_size": "0",
    "reference_batch_size": "0",
    "learning_rate": "0",
    "rounds": "0",
}
# Derived rounds: until the slowest mode has shrunk by so much; more than that many are not run unasked.
_TOLERANCE, _MOST_ROUNDS = 1e-10, 10_000_000
_LITTLE = 1e-3  # of the objective at the first round: a difference in loss that counts as none at the end
_LEFT_OUT = ("sweep_dir", "shard", "eval_every", "eval_examples", "target_accuracy", "tensorboard")
SECTIONS: dict[str, dict[str, tuple]] = {
    "The study": {
        "points": (60, "Rounds at which it is measured, evenly spaced on a logarithmic scale."),
        "window": ("", "FIRST:LAST rounds of the fits; default the last nine tenths of the run."),
        "endpoints": (
            0,
            "Devices of each seed whose end point is examined (curvature, perturbation); of averaging the mean model.",
        ),
        "output_dir": ("", "Folder to write into, new or empty; default runs/convergence-<time>."),
    }
} | {
    title: {
        name: (_DEFAULTS.get(name, default), text) for name, (default, text) in section.items() if name not in _LEFT_OUT
    }
    for title, section in plan.SECTIONS.items()
}
SECTIONS["Local training (comma lists)"]["learning_rate"] = (
    "0",
    "eta; 0 derives it from the problem's curvature and the graph's spectrum, for linear devices with squared loss.",
)
SECTIONS["What is run (comma lists)"]["rounds"] = (
    "0",
    "Communication rounds; 0 for as many as those devices need to a relative distance of 1e-10.",
)
options.define(SECTIONS, FLAGS)


def derive(cells: Sequence[Cell]) -> dict[str, float]:
    """Fills in step size and rounds of a curve where they are 0; what was derived.

    Raises:
      InputError: there is nothing to derive them from.
    """
    wanted = [name for name in ("learning_rate", "rounds") if not cells[0].given[name].value]
    steps, rounds = [], []
    for cell in cells if wanted else ():
        given, step = cell.given, cell.given.learning_rate
        given["learning_rate"].value = step or 1.0
        built = experiment.build(given)
        solved = given.algorithm in ("distillation", "local") and closed_form(cell, built.problem)
        if not (solved and steady(cell, built.topology)):
            raise InputError(
                f"--{wanted[0]} is derived for distillation or local, linear devices, squared loss, one constant sgd "
                "step on all data, plain mixing and a graph that stays; give a number"
            )
        if "rounds" in wanted and given.consensus_step_size_schedule != "constant":
            raise InputError("--rounds are not derived where zeta falls; give a number")
        equations = least_squares.normal_equations(built.problem, 1)
        curvatures, pull = least_squares.curvatures(equations, weight(cell))
        consensus = given.consensus if given.algorithm == "distillation" else "neighbors"
        eigenvalues = np.linalg.eigvals(built.topology.matrices[0].toarray())
        steps.append(
            step or rates.step_size(curvatures, pull, eigenvalues, consensus, built.consensus_step_size or 0.0)
        )
        needed = -math.log(_TOLERANCE) / (steps[-1] * least_squares.slowest(equations, weight(cell)))
        if needed > _MOST_ROUNDS and "rounds" in wanted:
            raise InputError(
                f"{cell.label} needs about {needed:,.0f} rounds at step size {steps[-1]:.3g}, so ill-conditioned are "
                "data and graph; give --rounds"
            )
        rounds.append(math.ceil(needed))
    derived = {"learning_rate": min(steps), "rounds": max(rounds)} if wanted else {}
    for cell in cells:
        for name in wanted:
            cell.given[name].value = derived[name]
    return {name: derived[name] for name in wanted}


def run(cells: Sequence[Cell], label: str, progress: tqdm) -> Curve:
    """Runs the seeds of a curve and measures them.

    Raises:
      InputError: flags that are wrong, or for which there is nothing to measure.
    """
    given = cells[0].given
    facts: dict[str, Any] = {"derived": derive(cells), "endpoints": []}
    progress.write(f"{label}: {given.rounds:,} rounds, step size {given.learning_rate:.3g}", file=sys.stderr)
    points = np.unique(np.round(np.geomspace(1, max(given.rounds, 1), FLAGS.points)).astype(int))
    steps = np.asarray(schedules.schedule(given.learning_rate_schedule, 1.0, given.rounds)(points)) * np.ones(
        len(points)
    )
    values: dict[str, list[np.ndarray]] = {}
    devices: dict[str, list[np.ndarray]] = {}
    like, measure = None, None
    for cell in cells:
        built = experiment.build(cell.given, like=like)
        like, solved = built.simulation, closed_form(cell, built.problem)
        if measure is None:  # the same function for all seeds, since it is compiled for one
            measure = _measure(MEASURES[given.algorithm], built.learners, solved)
        key = jax.random.key(cell.given.seed)
        state, (quantities, coefficients) = like.record(key, like.init(key), points, measure)
        found = {name: np.asarray(value, np.float64) for name, value in quantities._asdict().items()}
        mean = found["gradient_norm_sq"].mean(-1)
        one: dict[str, np.ndarray] = {
            "objective": found.pop("objective"),
            "gradient_norm_sq_mean": mean,
            "gradient_norm_sq_max": found["gradient_norm_sq"].max(-1),
            "gradient_norm_sq_running": rates.running_average(points, mean, steps),
            "own_gradient_norm_sq_mean": found["own_gradient_norm_sq"].mean(-1),
            "consensus_error": found["consensus_error"].mean(-1),
            "distance_to_solution": np.full(len(points), np.nan),
        }
        if solved:
            one["distance_to_solution"], known = against(cell, built, np.asarray(coefficients))
            for name, number in known.items():
                facts.setdefault(name, []).append(number)
        for rows, fresh in ((values, one), (devices, found)):
            for name, value in fresh.items():
                rows.setdefault(name, []).append(value)
        facts.setdefault("spectral_gap", []).append(built.topology.spectral_gap)
        if cell is cells[0]:
            links = sum(abs(matrix) for matrix in built.topology.matrices).tolil()
            links.setdiag(0)
            facts["neighbors"] = (links.tocsr() > 0).sum(1).tolist()
            drawn = isinstance(built.topology.mixing_matrix, ddjax.networks.Drawn)
            facts["mixing_decay"] = None if drawn else rates.mixing_decay(built.topology.matrices)
        if FLAGS.endpoints:
            kind, tolerance = MEASURES[given.algorithm], _LITTLE * float(one["objective"][0])
            ends = convergence.end_points(built.learners, state, built.problem, kind, FLAGS.endpoints, tolerance)
            facts["endpoints"] += [{"seed": cell.given.seed, "tolerance": tolerance, **end._asdict()} for end in ends]
        progress.update()
    facts["theory"] = theory(cells[0], facts, points, window(points))
    stacked, apart = ({name: np.array(rows) for name, rows in each.items()} for each in (values, devices))
    return Curve(label, list(cells), points, stacked, apart, facts)


def _measure(kind: Callable, learners: ddjax.Learners, solved: bool) -> Callable:
    def measure(state: Any, problem: ddjax.Problem) -> tuple:
        return kind(learners, state, problem), convergence.coefficients(state.devices) if solved else None

    return measure


def against(cell: Cell, built: experiment.Experiment, coefficients: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
    """Distances to the solution, and what theory says of a run with constant steps on all data.

    That is `predicted_distance`, how far from the solution devices come to rest, and `predicted_rate`, the logarithm of
    the factor by which the slowest mode shrinks in a round where they come to rest at it.
    """
    given = cell.given
    equations, rho = least_squares.normal_equations(built.problem, coefficients.shape[-1]), weight(cell)
    if MEASURES[given.algorithm] is convergence.of_averaging:
        return least_squares.distance(coefficients, least_squares.averaged(equations), equations, 0.0), {}
    solution = least_squares.co_regularized(equations, rho)
    distances = least_squares.distance(coefficients, solution, equations, rho)
    falling = given.consensus == "gradient" and given.consensus_step_size_schedule != "constant"
    if given.algorithm != "distillation" or falling or not steady(cell, built.topology):
        return distances, {}
    if given.consensus == "tracking":
        rate = math.log1p(-given.learning_rate * least_squares.slowest(equations, rho))
        return distances, {"predicted_distance": 0.0, "predicted_rate": rate}
    matrix = built.topology.matrices[0].toarray()
    follows = least_squares.follows(given.consensus, matrix, built.consensus_step_size or 0.0)
    rest = least_squares.resting_point(equations, rho, follows)
    return distances, {"predicted_distance": float(least_squares.distance(rest[None], solution, equations, rho)[0])}


def window(rounds: np.ndarray) -> tuple[int, int]:
    """Of the fits: `--window`, or the last nine tenths of the run."""
    last = int(rounds[-1])
    if not FLAGS.window:
        return max(last // 10, 1), last
    first, _, end = FLAGS.window.partition(":")
    if not (first.isdecimal() and end.isdecimal() and 0 < int(first) < int(end)):
        raise InputError(f"window is FIRST:LAST in rounds, as in 100:1000, got {FLAGS.window!r}")
    return int(first), int(end)


def study() -> int:
    """Runs what the flags describe; the exit code."""
    for name, value in _DEFAULTS.items():
        if not FLAGS[name].present:
            FLAGS[name].parse(value)
    if FLAGS.points < 2 or FLAGS.endpoints < 0:
        raise InputError(f"points must be at least 2 and endpoints at least 0, got {FLAGS.points}, {FLAGS.endpoints}")
    cells = plan.cells(FLAGS)
    for cell in cells:
        if cell.given.algorithm not in MEASURES:
            raise InputError(f"no measures of convergence of {cell.given.algorithm!r}; accepted: {', '.join(MEASURES)}")
    folder = records.output_folder(FLAGS.output_dir, f"runs/convergence-{datetime.datetime.now():%Y%m%d-%H%M%S}")
    precision = plan.process_precision(cells)
    execution.start(options.parse([f"--host_devices={FLAGS.host_devices or 1}", f"--precision={precision}"]))
    window(np.array([1]))
    found = []
    with tqdm(total=len(cells), unit="run", disable=not sys.stderr.isatty()) as progress:
        for places in alike(cells, "seed"):
            group = [cells[place] for place in places]
            label = ", ".join(part for part in group[0].label.split(", ") if not part.startswith("seed="))
            with jax.default_matmul_precision(execution.matmul_precision(group[0].given)):
                found.append(run(group, label or group[0].given.algorithm, progress))
    summary = {
        "command": shlex.join(["python", *sys.argv]),
        **records.environment(),
        "curves": [
            {
                "label": curve.label,
                "flags": options.values(curve.cells[0].given),
                "seeds": [cell.given.seed for cell in curve.cells],
                "window": window(curve.rounds),
                "final": {name: values[:, -1].tolist() for name, values in curve.values.items()},
                "slopes": slopes(curve, window(curve.rounds)),
                **curve.facts,
            }
            for curve in found
        ],
        "dependence": dependence(found),
    }
    convergence_report.write(folder, found, summary)
    print((folder / "summary.md").read_text())
    print(f"written to {folder}")
    lost = [curve.label for curve in found if not np.isfinite(curve.values["objective"][:, -1]).all()]
    if lost:
        print(f"convergence.py: no longer finite: {'; '.join(lost)}; try a smaller step size", file=sys.stderr)
    return 3 if lost else 0


if __name__ == "__main__":
    text = "Measures convergence against theory: python scripts/convergence.py --name=value,value …"
    sys.exit(options.main(study, text, sections=SECTIONS, flag_values=FLAGS))
