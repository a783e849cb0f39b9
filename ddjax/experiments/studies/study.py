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
from functools import partial
from typing import Any

import jax
import numpy as np
from absl import flags
from tqdm import tqdm

import ddjax
from ddjax.errors import InputError
from ddjax.experiments import build, execution, options, records
from ddjax.experiments.studies import page
from ddjax.experiments.studies.data import (
    MEASURES,
    Curve,
    alike,
    closed_form,
    dependence,
    plain,
    reached,
    slopes,
    steady,
    step_sizes,
    theory,
    weight,
)
from ddjax.experiments.sweeps import plan
from ddjax.experiments.sweeps.plan import Cell
from ddjax.theory import convergence, least_squares, rates

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
_MOST_ROUNDS = 10_000_000  # derived, that are run unasked
_LEFT_OUT = ("sweep_dir", "shard", *options.SECTIONS["Output"], "eval_examples", "client_fraction")
SECTIONS: dict[str, dict[str, tuple]] = {
    "The study": {
        "points": (60, "At most so many rounds are measured, evenly spaced on a logarithmic scale."),
        "window": ("", "FIRST:LAST, rounds of the fits; default the last nine tenths of the run."),
        "endpoints": (
            0,
            "Up to how many devices of each seed are examined at the end (curvature, perturbation); of averaging it is "
            "the mean model.",
        ),
        "output_dir": ("", "Folder to write into, new or empty; default runs/convergence-<time>."),
    }
} | {
    title: {
        name: (_DEFAULTS.get(name, default), text) for name, (default, text) in section.items() if name not in _LEFT_OUT
    }
    for title, section in plan.SECTIONS.items()
    if not set(section) <= set(_LEFT_OUT)
}
SECTIONS["Local training (comma lists)"]["learning_rate"] = (
    "0",
    "eta; 0 derives it from the problem's curvature and the graph's spectrum, for linear devices with squared loss, a "
    "constant sgd step on all data, plain mixing and a graph that stays.",
)
SECTIONS["What is run (comma lists)"]["rounds"] = (
    "0",
    "Communication rounds; 0 for as many as those devices need to a relative distance of 1e-10 (float64) or 1e-5.",
)
SECTIONS["What is run (comma lists)"]["algorithm"] = ("distillation", f"One of {', '.join(MEASURES)}.")
options.define(SECTIONS, FLAGS)


def prepare(cells: Sequence[Cell]) -> dict[str, float]:
    """Builds each cell of a curve once, so that mistakes show, and fills in step size and rounds where they are 0.

    Returns:
      What was derived.

    Raises:
      InputError: flags that are wrong, or from which nothing can be derived.
    """
    wanted = [name for name in ("learning_rate", "rounds") if not cells[0].given[name].value]
    steps, rounds = [], []
    for cell in cells:
        given, step = cell.given, cell.given.learning_rate
        given["learning_rate"].value = step or 1.0
        built = build.build(given)
        if not wanted:
            continue
        solved = given.algorithm in ("distillation", "local") and closed_form(cell, built.problem)
        if not (solved and steady(cell, built.topology)):
            raise InputError(
                f"--{' and --'.join(wanted)} can be derived for distillation or local, at most "
                f"{least_squares.LARGEST} coefficients of linear devices, squared loss, one constant sgd step on all "
                "data, plain mixing and a graph that stays; give numbers"
            )
        if "rounds" in wanted and given.consensus_step_size_schedule != "constant":
            raise InputError("--rounds are not derived where zeta falls; give a number")
        equations, rho = least_squares.normal_equations(built.problem, 1), weight(cell)
        curvatures, pull = least_squares.curvatures(equations, rho)
        consensus, matrix, zeta = form(cell, built)
        steps.append(step or rates.step_size(curvatures, pull, np.linalg.eigvals(matrix), consensus, zeta))
        if "rounds" in wanted:
            factor = least_squares.factor(equations, rho, steps[-1], consensus, matrix, zeta)
            needed = math.log(1e-10 if given.precision == "float64" else 1e-5) / math.log(factor)
            if needed > _MOST_ROUNDS:
                raise InputError(
                    f"{cell.label} needs about {needed:,.0f} rounds at step size {steps[-1]:.3g}, so ill-conditioned "
                    "are data and graph; give --rounds"
                )
            rounds.append(math.ceil(needed))
    derived = {"learning_rate": min(steps, default=0.0), "rounds": max(rounds, default=0)}
    for cell in cells:
        for name in wanted:
            cell.given[name].value = derived[name]
    return {name: derived[name] for name in wanted}


def form(cell: Cell, built: build.Experiment) -> tuple[str, np.ndarray, float]:
    """How devices come to consensus: form, `W`, `ζ`; devices alone are like neighbors that are not listened to."""
    consensus = cell.given.consensus if cell.given.algorithm == "distillation" else "neighbors"
    return consensus, built.topology.matrices[0].toarray(), built.consensus_step_size or 0.0


def run(cells: Sequence[Cell], label: str, derived: dict[str, float], progress: tqdm) -> Curve:
    """Runs the seeds of a curve and measures them."""
    given = cells[0].given
    facts: dict[str, Any] = {"derived": derived, "endpoints": [], "spectral_gap": [], "neighbors": []}
    facts["mixing_decay"] = None
    progress.write(f"{label}: {given.rounds:,} rounds, step size {given.learning_rate:.3g}", file=sys.stderr)
    points = rounds_measured(given)
    steps = step_sizes(given, "learning_rate", points)
    values: dict[str, list[np.ndarray]] = {}
    devices: dict[str, list[np.ndarray]] = {}
    first: Any = None
    for cell in cells:
        # On several places numbers are constants of the program, and default step sizes may differ with the graph.
        built = build.build(cell.given, like=first and first.simulation if jax.device_count() == 1 else None)
        if first is None:  # one function and one set of population for all seeds, since they are compiled for one
            first, measure = built, _measure(given, built, closed_form(cell, built.problem))
        key = jax.random.key(cell.given.seed)
        simulation = built.simulation
        state, (quantities, coefficients) = simulation.record(key, simulation.init(key), points, measure)
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
        facts["solved"], facts["consensus_step_size"] = coefficients is not None, built.consensus_step_size
        if facts["solved"]:
            one["distance_to_solution"], known = against(cell, built, np.asarray(coefficients))
            for name, number in known.items():
                facts.setdefault(name, []).append(number)
        for rows, fresh in ((values, one), (devices, found)):
            for name, value in fresh.items():
                rows.setdefault(name, []).append(value)
        if options.meets(given):
            matrices = built.topology.matrices
            facts["spectral_gap"].append(built.topology.spectral_gap)
            facts["neighbors"].append(degrees(matrices))
            if cell is cells[0] and not isinstance(built.topology.network, ddjax.networks.matrices.Drawn):
                facts["mixing_decay"] = rates.mixing_decay(matrices)
        if FLAGS.endpoints:
            kind = MEASURES[given.algorithm]
            ends = convergence.end_points(first.population, state, built.problem, kind, FLAGS.endpoints)
            facts["endpoints"] += [{"seed": cell.given.seed, **end._asdict()} for end in ends]
        progress.update()
    if None in facts["spectral_gap"]:
        facts["spectral_gap"] = []
    facts["theory"] = theory(cells[0], facts, points, window(points))
    stacked, apart = ({name: np.array(rows) for name, rows in each.items()} for each in (values, devices))
    return Curve(label, list(cells), points, stacked, apart, facts)


def rounds_measured(given: flags.FlagValues) -> np.ndarray:
    """Evenly spaced on a logarithmic scale."""
    return np.unique(np.round(np.geomspace(1, given.rounds, FLAGS.points)).astype(int))


def degrees(matrices: Sequence[Any]) -> list[int]:
    """How many others each device hears of: in any round of a cycle, or in the draws there are of a random graph."""
    heard = sum(abs(matrix) for matrix in matrices) != 0
    return (heard.sum(axis=1) - heard.diagonal()).tolist()


def _measure(given: flags.FlagValues, built: build.Experiment, solved: bool) -> Callable:
    kind = MEASURES[given.algorithm]
    if kind is convergence.of_distillation:
        mixer = None  # the graph, or the mixer's memory or draws, of a round that is over is not to be had
        if given.algorithm == "fedmd" or (given.mixing == "server" and not given.compressor):
            mixer = ddjax.server()
        elif plain(given) and not isinstance(built.topology.network, ddjax.networks.matrices.Drawn):
            mixer = ddjax.weighted_average()
        kind = partial(kind, mixer=mixer)

    def measure(state: Any, problem: ddjax.Problem) -> tuple:
        return kind(built.population, state, problem), convergence.coefficients(state.devices) if solved else None

    return measure


def against(cell: Cell, built: build.Experiment, coefficients: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
    """Distances to the solution, and what theory says of a run with constant steps on all data.

    That is `predicted_distance`, how far from the solution devices come to rest, and `predicted_rate`, the logarithm of
    the factor by which the distance shrinks in a round where they come to rest at it.
    """
    given = cell.given
    equations, rho = least_squares.normal_equations(built.problem, coefficients.shape[-1]), weight(cell)
    if MEASURES[given.algorithm] is convergence.of_averaging:
        directions = least_squares.determined_together(equations)
        return least_squares.distance(coefficients, least_squares.averaged(equations), directions), {}
    directions = least_squares.determined(equations, rho)
    solution = least_squares.co_regularized(equations, rho)
    distances = least_squares.distance(coefficients, solution, directions)
    falling = given.consensus == "gradient" and given.consensus_step_size_schedule != "constant"
    if given.algorithm != "distillation" or falling or not steady(cell, built.topology):
        return distances, {}
    consensus, matrix, zeta = form(cell, built)
    if consensus == "tracking":
        factor = least_squares.factor(equations, rho, given.learning_rate, consensus, matrix)
        return distances, {"predicted_distance": 0.0, "predicted_rate": math.log(factor)}
    follows = least_squares.follows(consensus, matrix, zeta)
    rest = least_squares.resting_point(equations, rho, follows)
    return distances, {"predicted_distance": float(least_squares.distance(rest[None], solution, directions)[0])}


def window(rounds: np.ndarray) -> tuple[int, int]:
    """Of the fits: `--window`, or the last nine tenths of the run."""
    last = int(rounds[-1])
    if not FLAGS.window:
        return max(last // 10, 1), last
    first, _, end = FLAGS.window.partition(":")
    if not (first.isdecimal() and end.isdecimal() and 0 < int(first) < int(end)):
        raise InputError(f"window is FIRST:LAST with 1 ≤ FIRST < LAST, in rounds, as in 100:1000, got {FLAGS.window!r}")
    return int(first), int(end)


def _summary(found: Sequence[Curve], planned: int) -> dict[str, Any]:
    """What `summary.json` holds."""
    return {
        "command": shlex.join(["python", *sys.argv]),
        "curves_planned": planned,
        **records.environment(),
        "curves": [
            {
                "label": curve.label,
                "flags": options.values(curve.cells[0].given),
                "seeds": [cell.given.seed for cell in curve.cells],
                "window": window(curve.rounds),
                "final": {name: values[:, -1].tolist() for name, values in curve.values.items()},
                "reached": reached(curve.cells[0], curve.values["distance_to_solution"][:, -1]),
                "slopes": slopes(curve, window(curve.rounds)),
                **curve.facts,
            }
            for curve in found
        ],
        "dependence": dependence(found),
    }


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
    curves = [[cells[place] for place in places] for places in alike(cells, "seed")]
    derived = [prepare(group) for group in curves]
    for group in curves:
        points = rounds_measured(group[0].given)
        first, last = window(points)
        if ((points >= first) & (points <= last)).sum() < 2:
            raise InputError(f"fits need two rounds measured from {first} to {last}; give more --points or a --window")
    found: list[Curve] = []
    with tqdm(total=len(cells), unit="run", disable=not sys.stderr.isatty()) as progress:
        for group, known in zip(curves, derived, strict=True):
            label = ", ".join(part for part in group[0].label.split(", ") if not part.startswith("seed="))
            with jax.default_matmul_precision(execution.matmul_precision(group[0].given)):
                found.append(run(group, label or group[0].given.algorithm, known, progress))
            page.tables(folder, found, summary := _summary(found, len(curves)))
    page.page(folder, found, summary)
    print((folder / "summary.md").read_text())
    print(f"written to {folder}")
    lost = [curve.label for curve in found if not np.isfinite(curve.values["objective"][:, -1]).all()]
    if lost:
        print(f"convergence.py: no longer finite: {'; '.join(lost)}; try a smaller step size", file=sys.stderr)
    return 3 if lost else 0


def main() -> int:
    """Runs the command; the exit code."""
    text = "Measures convergence against theory: python scripts/convergence.py --name=value,value …"
    return options.main(study, text, sections=SECTIONS, flag_values=FLAGS)
