"""Studies of convergence: what the theory speaks of, measured exactly at log-spaced rounds, with fitted rates.

    python scripts/convergence.py --topology=ring,directed_ring --consensus=tracking --precision=float64

Takes the flags of train.py, as comma lists like sweep.py; a *curve* is one combination of them, over its seeds. Leaves
in --output_dir convergence.csv (a row per curve, seed and round), summary.json, summary.md, and figures (PNG and PDF).
"""

import datetime
import math
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import convergence_report
import execution
import experiment
import jax
import numpy as np
import options
import plan
import records
from absl import flags
from plan import Cell
from tqdm import tqdm

import ddjax
from ddjax import convergence, endpoint, least_squares, rates, tasks
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
# Derived rounds: until the slowest mode has shrunk by so much, but never more than that many.
_TOLERANCE, _MOST_ROUNDS = 1e-10, 2_000_000
_LEFT_OUT = ("sweep_dir", "shard", "eval_every", "target_accuracy", "tensorboard")
_KINDS: dict[str, Callable] = {
    "distillation": convergence.of_distillation,
    "fedmd": convergence.of_distillation,
    "local": convergence.of_devices_alone,
    "centralized": convergence.of_devices_alone,
} | dict.fromkeys(("dsgd", "choco", "push_sum", "gossip", "dynamic_averaging"), convergence.of_averaging)
SECTIONS: dict[str, dict[str, tuple]] = {
    "The study": {
        "points": (60, "Rounds at which it is measured, evenly spaced on a logarithmic scale."),
        "window": ("", "FIRST:LAST rounds of the fits; default the last nine tenths of the run."),
        "endpoint": (0, "Devices whose end point is examined: Hessian, perturbation; of the first seed."),
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


class Curve(NamedTuple):
    """One combination of settings, over its seeds.

    Attributes:
      label: what tells it from the others.
      cells: one a seed.
      rounds: `[T]` at which it was measured.
      values: name → `[S, T]`.
      facts: what is known of it, for the summary.
    """

    label: str
    cells: list[Cell]
    rounds: np.ndarray
    values: dict[str, np.ndarray]
    facts: dict[str, Any]


def curves(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells that differ in their seed alone."""
    alike: dict[str, list[Cell]] = {}
    for cell in cells:
        alike.setdefault(str({**cell.settings, "seed": None}), []).append(cell)
    return list(alike.values())


def closed_form(cell: Cell, problem: ddjax.Problem) -> bool:
    """Whether the solution is known: linear devices with squared loss and squared distance."""
    alike = {name.split(":")[0] for name in cell.given.models.split("+")} == {"linear"}
    return alike and tasks.of(problem.y) is tasks.REGRESSION


def weight(cell: Cell) -> float:
    """`ρ`, which devices alone and those that average parameters do not have."""
    return cell.given.distillation_weight if _KINDS[cell.given.algorithm] is convergence.of_distillation else 0.0


def derive(cells: Sequence[Cell]) -> dict[str, float]:
    """Fills in step size and rounds of a curve where they are 0.

    Raises:
      InputError: there is nothing to derive them from.
    """
    wanted = [name for name in ("learning_rate", "rounds") if not cells[0].given[name].value]
    steps, rounds = [], []
    for cell in cells if wanted else ():
        given, step = cell.given, cell.given.learning_rate
        given["learning_rate"].value = step or 1.0
        built = experiment.build(given)
        whole = not given.batch_size and not given.reference_batch_size
        if given.algorithm not in ("distillation", "local") or not closed_form(cell, built.problem) or not whole:
            raise InputError(
                f"--{wanted[0]} can be derived for linear devices with squared loss on all data at once, under "
                "distillation or local; give a number"
            )
        equations = least_squares.normal_equations(built.problem, 1)
        curvatures, pull = least_squares.curvatures(equations, weight(cell))
        consensus = given.consensus if given.algorithm == "distillation" else "neighbors"
        eigenvalues = np.linalg.eigvals(built.topology.matrices[0].toarray())
        steps.append(
            step or rates.step_size(curvatures, pull, eigenvalues, consensus, built.consensus_step_size or 0.0)
        )
        needed = -math.log(_TOLERANCE) / (steps[-1] * least_squares.slowest(equations, weight(cell)))
        rounds.append(min(_MOST_ROUNDS, math.ceil(needed)))
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
    if given.algorithm not in _KINDS:
        raise InputError(f"no measures of convergence of {given.algorithm!r}; accepted: {', '.join(_KINDS)}")
    facts: dict[str, Any] = {"derived": derive(cells)}
    points = np.unique(np.round(np.geomspace(1, max(given.rounds, 1), FLAGS.points)).astype(int))
    found: dict[str, list[np.ndarray]] = {}
    like, measure = None, None
    for number, cell in enumerate(cells):
        built = experiment.build(cell.given, like=like)
        like, solved = built.simulation, closed_form(cell, built.problem)
        if measure is None:  # the same function for all seeds, since it is compiled for one
            measure = _measure(_KINDS[given.algorithm], built.learners, solved)
        key = jax.random.key(cell.given.seed)
        state, (quantities, coefficients) = like.record(key, like.init(key), points, measure)
        values = {
            "objective": quantities.objective,
            "gradient_norm_sq_mean": quantities.gradient_norm_sq.mean(-1),
            "gradient_norm_sq_max": quantities.gradient_norm_sq.max(-1),
            "own_gradient_norm_sq_mean": quantities.own_gradient_norm_sq.mean(-1),
            "consensus_error": quantities.consensus_error.mean(-1),
            "distance_to_solution": np.full(len(points), np.nan),
        }
        if solved:
            distances, bias = _against(cell, built, np.asarray(coefficients))
            values["distance_to_solution"] = distances
            facts.setdefault("predicted_bias", []).append(bias)
        for name, value in values.items():
            found.setdefault(name, []).append(np.asarray(value, np.float64))
        if number == 0:
            facts |= _network(built)
            facts["endpoints"] = _endpoints(built, state)
        progress.update()
    return Curve(label, list(cells), points, {name: np.array(rows) for name, rows in found.items()}, facts)


def _measure(kind: Callable, learners: ddjax.Learners, solved: bool) -> Callable:
    def measure(state: Any, problem: ddjax.Problem) -> tuple:
        return kind(learners, state, problem), convergence.coefficients(state.devices) if solved else None

    return measure


def _against(cell: Cell, built: experiment.Experiment, coefficients: np.ndarray) -> tuple[np.ndarray, float]:
    """Distances to the solution, and how far from it theory says that devices come to rest (NaN if it does not)."""
    equations, rho = least_squares.normal_equations(built.problem, coefficients.shape[-1]), weight(cell)
    if _KINDS[cell.given.algorithm] is convergence.of_averaging:
        return least_squares.distance(coefficients, least_squares.averaged(equations), equations, 0.0), math.nan
    solution = least_squares.co_regularized(equations, rho)
    distances = least_squares.distance(coefficients, solution, equations, rho)
    steady = cell.given.consensus_step_size_schedule == "constant" or cell.given.consensus != "gradient"
    if cell.given.algorithm != "distillation" or built.topology.changes or not steady:
        return distances, math.nan
    matrix = built.topology.matrices[0].toarray()
    follows = least_squares.follows(cell.given.consensus, matrix, built.consensus_step_size or 0.0)
    rest = least_squares.resting_point(equations, rho, follows)
    return distances, float(least_squares.distance(rest[None], solution, equations, rho)[0])


def _network(built: experiment.Experiment) -> dict[str, Any]:
    gap = built.topology.spectral_gap
    fixed = not built.topology.changes
    return {
        "spectral_gap": gap,
        "mixing_decay_theory": None if gap is None else 1 - gap,
        "mixing_decay_measured": rates.mixing_decay(built.topology.matrices) if fixed else None,
    }


def _endpoints(built: experiment.Experiment, state: Any) -> list[dict[str, Any]]:
    """Of the first `--endpoint` devices, at the average soft decision that the last round has."""
    found = []
    problem, learners = built.problem, built.learners
    mean = learners.predict(state.devices, problem.reference).mean(0)
    starts = np.cumsum([0, *(group.size for group in learners.groups)])
    for n in range(min(FLAGS.endpoint, learners.size)):
        g = int(np.searchsorted(starts, n, side="right")) - 1
        device = jax.tree.map(lambda leaf, at=n - starts[g]: leaf[at], state.devices[g])
        held = problem.private[n, : problem.sizes[n]]
        batch = problem.x[held], problem.y[held], None
        loss = learners.groups[g].learner.objective
        found.append({"device": n, **endpoint.examine(loss, device.params, batch, problem.reference, mean)._asdict()})
    return found


def window(rounds: np.ndarray) -> tuple[int, int]:
    """Of the fits: `--window`, or the last nine tenths of the run."""
    last = int(rounds[-1])
    if not FLAGS.window:
        return max(last // 10, 1), last
    first, _, end = FLAGS.window.partition(":")
    if not (first.isdecimal() and end.isdecimal() and 0 < int(first) < int(end)):
        raise InputError(f"window is FIRST:LAST in rounds, as in 100:1000, got {FLAGS.window!r}")
    return int(first), int(end)


def slopes(curve: Curve) -> dict[str, Any]:
    """Fitted rates of what falls; `None` where it is not positive and finite."""
    found: dict[str, Any] = {}
    for name in ("gradient_norm_sq_mean", "gradient_norm_sq_max", "consensus_error", "distance_to_solution"):
        for scale in ("log-log", "semi-log"):
            try:
                fit = rates.slope(curve.rounds, curve.values[name], window(curve.rounds), scale)._asdict()
            except InputError:
                fit = None
            found.setdefault(name, {})[scale] = fit
    return found


def study() -> int:
    """Runs what the flags describe; the exit code."""
    for name, value in _DEFAULTS.items():
        if not FLAGS[name].present:
            FLAGS[name].parse(value)
    if FLAGS.points < 2 or FLAGS.endpoint < 0:
        raise InputError(f"points must be at least 2 and endpoint at least 0, got {FLAGS.points} and {FLAGS.endpoint}")
    groups = curves(plan.cells(FLAGS))
    folder = records.output_folder(FLAGS.output_dir, f"runs/convergence-{datetime.datetime.now():%Y%m%d-%H%M%S}")
    first = groups[0][0].given
    execution.start(options.parse([f"--host_devices={FLAGS.host_devices or 1}", f"--precision={first.precision}"]))
    window(np.array([1]))
    found = []
    with tqdm(total=sum(map(len, groups)), unit="run", disable=not sys.stderr.isatty()) as progress:
        for cells in groups:
            label = ", ".join(part for part in cells[0].label.split(", ") if not part.startswith("seed="))
            found.append(run(cells, label or cells[0].given.algorithm, progress))
    summary = {
        "command": shlex.join(["python", *sys.argv]),
        **records.environment(),
        "curves": [
            {
                "label": curve.label,
                "flags": options.values(curve.cells[0].given),
                "seeds": [cell.given.seed for cell in curve.cells],
                "final": {name: values[:, -1].tolist() for name, values in curve.values.items()},
                **curve.facts,
                "slopes": slopes(curve),
            }
            for curve in found
        ],
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
