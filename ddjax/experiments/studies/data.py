"""What is known of the curves of a study: measured, fitted, and what theory says of them."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from scipy import integrate

import ddjax
from ddjax import schedules
from ddjax.errors import InputError
from ddjax.experiments.sweeps.plan import Cell
from ddjax.learning import tasks
from ddjax.networks.topology import Topology
from ddjax.theory import convergence, least_squares, rates

MEASURES: dict[str, Callable] = {
    "distillation": convergence.of_distillation,
    "fedmd": convergence.of_distillation,
    "local": convergence.of_devices_alone,
    "centralized": convergence.of_devices_alone,
} | dict.fromkeys(("dsgd", "choco", "push_sum", "gossip", "dynamic_averaging"), convergence.of_averaging)


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


def alike(cells: Sequence[Cell], name: str) -> list[list[int]]:
    """Places of cells that differ in one flag alone."""
    groups: dict[str, list[int]] = {}
    for place, cell in enumerate(cells):
        groups.setdefault(str({**cell.settings, name: None}), []).append(place)
    return list(groups.values())


def closed_form(cell: Cell, problem: ddjax.Problem) -> bool:
    """Whether the solution is known: linear devices with squared loss and squared distance, not too many."""
    models = {name.split(":")[0] for name in cell.given.models.split("+")}
    unknowns = len(problem.private_indices) * (math.prod(problem.x.shape[1:]) + 1)
    return models == {"linear"} and infer_task(problem.y) is tasks.REGRESSION and unknowns <= least_squares.LARGEST


def weight(cell: Cell) -> float:
    """`ρ`, which devices alone and those that average parameters do not have."""
    return cell.given.distillation_weight if MEASURES[cell.given.algorithm] is convergence.of_distillation else 0.0


def whole(cell: Cell) -> bool:
    """Whether all data are used at once."""
    distils = MEASURES[cell.given.algorithm] is convergence.of_distillation
    return not cell.given.batch_size and not (distils and cell.given.reference_batch_size)


def reached(cell: Cell, distance: np.ndarray) -> bool:
    """Whether the solution counts as reached, to what its precision allows, given how far the seeds are from it."""
    return bool(np.mean(distance) < (1e-8 if cell.given.precision == "float64" else 1e-4))


def plain(given: flags.FlagValues) -> bool:
    """Whether soft decisions are mixed by `W` and nothing else."""
    return given.mixing == "average" and not given.compressor


def step_sizes(given: flags.FlagValues, name: str, rounds: np.ndarray) -> np.ndarray:
    """`[T]` `learning_rate` or `consensus_step_size` in these rounds, as a part of its first."""
    schedule = schedules.schedule(getattr(given, f"{name}_schedule")).over(1.0, given.rounds)
    return np.broadcast_to(schedule(rounds), rounds.shape)


def steady(cell: Cell, topology: Topology) -> bool:
    """Whether a round is one and the same linear map of linear devices, but for `ζ`: a constant SGD step on all data,
    mixing by one `W` and nothing else."""
    given = cell.given
    step = (given.optimizer, given.learning_rate_schedule, given.local_steps, given.local_epochs)
    return step == ("sgd", "constant", 1, 0) and plain(given) and whole(cell) and not topology.changes


def theory(cell: Cell, facts: dict[str, Any], rounds: np.ndarray, inside: tuple[int, int]) -> dict[str, dict[str, Any]]:
    """Slopes that theory gives, by quantity: `scale`, `value`, and whether it is a `bound` that slopes may lie below.

    Powers of steps have their slopes taken in the same rounds, for `(1 + t/τ)^−a` has its own only later. What is said
    of consensus errors of stochastic methods are orders argued here, not theorems.

    - `tracking` of linear devices on all data, with constant steps: the distance shrinks by `least_squares.factor`, and
      squares by its square.
    - The `gradient` form with `ζ_t` that falls so that its sum grows without end, and long enough for `mean_n z_n` to
      have followed (`ζ_0 τ ≥ 10` of `1/t`). On all data devices differ by `ζ_t` times what their soft decisions do, so
      the consensus error falls like `ζ_t²` or faster, and, of linear devices that end up apart, just so, the squared
      gradient norm at `z̄` with it and the distance to the solution like `ζ_t` (`least_squares.follows`). Stochastic
      gradients move `s̄` by the order of `η_t` a round, which `mean_n z_n` averages over `1/ζ_t` rounds: `η_t² / ζ_t`,
      if that is more.
    - Averaging of parameters, and `tracking` by stochastic gradients: devices differ by at most the order of `η_t`.
    - Squared gradient norm under averaging with stochastic gradients, not convex, averaged over rounds with weights
      `η_t`: at most of the order of `(1 + Σ η_t²) / Σ η_t` (Ghadimi and Lan 2013; of D-SGD Lian et al. 2017, Koloskova
      et al. 2020), of `t^−a` in the end `t^−min(a, 1 − a)`.
    """
    given, found = cell.given, {}
    distils = given.algorithm == "distillation" and plain(given)
    averages = given.algorithm in ("dsgd", "choco", "push_sum")

    def law(name: str, *curves: np.ndarray, bound: bool = False) -> None:
        """The quantity falls like the sum of these, so like the one that falls least."""
        fits = [rates.slope(rounds, curve[None], inside).value for curve in curves]
        found[name] = {"scale": "log-log", "value": max(fits), "bound": bound}

    eta, zeta = (step_sizes(given, name, rounds) for name in ("learning_rate", "consensus_step_size"))
    if distils and given.consensus == "gradient" and _unending(given, facts):
        if whole(cell):
            law("consensus_error", zeta**2, bound=not facts["solved"])
            law("gradient_norm_sq_mean", zeta**2, bound=not facts["solved"])
            law("distance_to_solution", zeta)
        else:
            law("consensus_error", zeta**2, eta**2 / zeta, bound=True)
    apart = averages or (distils and given.consensus == "tracking" and not whole(cell))
    if apart and given.learning_rate_schedule != "constant":
        law("consensus_error", eta**2, bound=True)
    if averages and given.batch_size:
        total, squares = (integrate.cumulative_trapezoid(each, rounds, initial=0) + each[0] for each in (eta, eta**2))
        law("gradient_norm_sq_running", 1 / total, squares / total, bound=True)
    rate = float(np.mean(facts.get("predicted_rate", 0)))
    if -rate * inside[0] > 2:  # so that the slowest direction alone is left
        names = ("gradient_norm_sq_mean", "gradient_norm_sq_max", "own_gradient_norm_sq_mean", "consensus_error")
        for name, times in (dict.fromkeys(names, 2) | {"distance_to_solution": 1}).items():
            found[name] = {"scale": "semi-log", "value": times * rate, "bound": False}
    return found


def _unending(given: flags.FlagValues, facts: dict[str, Any]) -> bool:
    """Whether `ζ_t` falls and its sum is, and in this run was, large."""
    name, *arguments = given.consensus_step_size_schedule.split(":")
    if name == "inverse_power":
        return float(arguments[0]) < 1
    tau = float(arguments[0]) if arguments else given.rounds / 10
    return name == "inverse_time" and facts["consensus_step_size"] * tau >= 10


def fit(x: np.ndarray, values: np.ndarray, inside: tuple[float, float], scale: str = "log-log") -> dict | None:
    """A slope, `None` where what should fall is not positive and finite."""
    try:
        return rates.slope(x, values, inside, scale)._asdict()
    except InputError:
        return None


def above_rounding(curve: Curve, name: str) -> np.ndarray:
    """`[S, T]` a quantity, NaN where rounding may hold what would fall by a factor a round; seeds get there apart."""
    values = curve.values[name]
    if "predicted_rate" not in curve.facts:
        return values
    floor = 1e4 * float(np.finfo(curve.cells[0].given.precision).eps)
    floor = floor if name == "distance_to_solution" else floor**2
    return np.where(values > floor * values.max(-1, keepdims=True), values, np.nan)


def slopes(curve: Curve, inside: tuple[int, int]) -> dict[str, Any]:
    """Fitted rates of what falls, in the rounds `inside`, and the slopes of each seed's devices."""
    late = math.sqrt(inside[0] * inside[1]), inside[1]
    found: dict[str, Any] = {}
    for name in curve.values:
        if name != "objective":
            values = above_rounding(curve, name)
            found[name] = {scale: fit(curve.rounds, values, inside, scale) for scale in ("log-log", "semi-log")}
            found[name]["log-log, late"] = fit(curve.rounds, values, late)
    scale = curve.facts["theory"].get("gradient_norm_sq_mean", {}).get("scale", "log-log")
    each = [
        [fit(curve.rounds, device[None], inside, scale) for device in values.T]
        for values in curve.devices["gradient_norm_sq"]
    ]
    return found | {"of_devices": [[device and device["value"] for device in seed] for seed in each]}


def dependence(found: Sequence[Curve]) -> list[dict[str, Any]]:
    """How what is left at the end depends on the spectral gap, over graphs, and on the number of devices.

    Log-log slopes over curves that differ in nothing else, where there are three; those that reach the solution leave
    nothing.
    """
    names = ("gradient_norm_sq_mean", "consensus_error", "distance_to_solution")
    fits = []
    left = [
        c for c in found if c.facts["spectral_gap"] and not reached(c.cells[0], c.values["distance_to_solution"][:, -1])
    ]
    for flag, x in (("topology", "spectral gap"), ("devices", "devices")):
        for places in alike([curve.cells[0] for curve in left], flag):
            group = [left[place] for place in places]
            if flag == "devices":
                along = np.array([curve.cells[0].given.devices for curve in group], float)
            else:
                along = np.array([np.mean(curve.facts["spectral_gap"]) for curve in group])
            if len(np.unique(along)) < 3:
                continue
            last = {name: np.array([curve.values[name][:, -1] for curve in group]).T for name in names}
            common = set.intersection(*(set(curve.label.split(", ")) for curve in group))
            fits.append({
                "x": x,
                "at": along.tolist(),
                "values": [curve.cells[0].settings[flag] for curve in group],
                "label": ", ".join(part for part in group[0].label.split(", ") if part in common),
                "final": {name: values.tolist() for name, values in last.items()},
                "slopes": {name: fit(along, values, (0, np.inf)) for name, values in last.items()},
            })  # fmt: skip
    return fits
