"""What is known of the curves of a study: measured, fitted, and what theory says of them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from plan import Cell

import ddjax
from ddjax import convergence, rates, schedules, tasks
from ddjax.topology import Topology
from ddjax.types import InputError

MEASURES: dict[str, Callable] = {
    "distillation": convergence.of_distillation,
    "fedmd": convergence.of_distillation,
    "local": convergence.of_devices_alone,
    "centralized": convergence.of_devices_alone,
} | dict.fromkeys(("dsgd", "choco", "push_sum", "gossip", "dynamic_averaging"), convergence.of_averaging)


REACHED = 1e-8  # relative distance at which a solution counts as reached


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
    """Whether the solution is known: linear devices with squared loss and squared distance."""
    models = {name.split(":")[0] for name in cell.given.models.split("+")}
    return models == {"linear"} and tasks.of(problem.y) is tasks.REGRESSION


def weight(cell: Cell) -> float:
    """`ρ`, which devices alone and those that average parameters do not have."""
    return cell.given.distillation_weight if MEASURES[cell.given.algorithm] is convergence.of_distillation else 0.0


def whole(cell: Cell) -> bool:
    """Whether all data are used at once."""
    return not cell.given.batch_size and not cell.given.reference_batch_size


def steady(cell: Cell, topology: Topology) -> bool:
    """Whether a round is one and the same linear map of linear devices, but for `ζ`: a constant SGD step on all data,
    mixing by one `W` and nothing else."""
    given = cell.given
    step = (given.optimizer, given.learning_rate_schedule, given.local_steps, given.local_epochs)
    plain = step == ("sgd", "constant", 1, 0) and given.mixing == "average" and not given.compressor
    return plain and whole(cell) and not topology.changes


def theory(cell: Cell, facts: dict[str, Any], rounds: np.ndarray, inside: tuple[int, int]) -> dict[str, dict[str, Any]]:
    """Slopes that theory gives, by quantity: `scale`, `value`, and whether it is a `bound` that slopes may lie below.

    - `tracking` of linear devices on all data, with constant steps: the distance shrinks by `1 − η μ` a round, with `μ`
      of `least_squares.slowest`, and squares by its square.
    - Consensus error: what drives devices apart is at most of the order of the step, `η_t` times a gradient under
      averaging of parameters and, by stochastic gradients, under `tracking`; `ζ_t (s_n − z̄)` in the `gradient` form. So
      its square falls at least like theirs, whose slope is taken in the same rounds.
    - The `gradient` form on all data with steps `ζ_t` that fall: as devices end up with soft decisions that differ, the
      consensus error and the squared gradient norm at `z̄` fall just like `ζ_t²`, and of linear devices the distance to
      the solution like `ζ_t`, see `least_squares.follows`.
    - Squared gradient norm under averaging with stochastic gradients, not convex, averaged over rounds with weights
      `η_t`: at most of the order of `(1 + Σ η_t²) / Σ η_t`, of steps like `t^−a` that is `t^−min(a, 1 − a)` (Ghadimi
      and Lan 2013; of D-SGD Lian et al. 2017, Koloskova et al. 2020).
    """
    given, found = cell.given, {}
    averages = given.algorithm in ("dsgd", "choco", "push_sum")
    distils = given.algorithm == "distillation"
    gradient, tracking = distils and given.consensus == "gradient", distils and given.consensus == "tracking"

    def follows(name: str, power: int) -> float:
        steps = schedules.schedule(getattr(given, f"{name}_schedule"), 1.0, given.rounds)(rounds)
        return rates.slope(rounds, np.array([steps * np.ones(len(rounds))]) ** power, inside).value

    def law(name: str, value: float, bound: bool = False, scale: str = "log-log") -> None:
        found[name] = {"scale": scale, "value": value, "bound": bound}

    if gradient and given.consensus_step_size_schedule != "constant":
        law("consensus_error", follows("consensus_step_size", 2), bound=not whole(cell))
        if whole(cell):
            law("gradient_norm_sq_mean", follows("consensus_step_size", 2))
            law("distance_to_solution", follows("consensus_step_size", 1))
    elif (averages or (tracking and not whole(cell))) and given.learning_rate_schedule != "constant":
        law("consensus_error", follows("learning_rate", 2), bound=True)
    schedule, *arguments = given.learning_rate_schedule.split(":")
    power = float(arguments[0]) if schedule == "inverse_power" else {"constant": 0.0, "inverse_time": 1.0}.get(schedule)
    if averages and given.batch_size and power is not None:
        law("gradient_norm_sq_running", -min(power, 1 - power), bound=True)
    if "predicted_rate" in facts:
        rate = float(np.mean(facts["predicted_rate"]))
        for name, times in (("distance_to_solution", 1), ("gradient_norm_sq_mean", 2), ("consensus_error", 2)):
            law(name, times * rate, scale="semi-log")
    return found


def fit(x: np.ndarray, values: np.ndarray, inside: tuple[float, float], scale: str = "log-log") -> dict | None:
    """A slope, `None` where what should fall is not positive and finite."""
    try:
        return rates.slope(x, values, inside, scale)._asdict()
    except InputError:
        return None


def slopes(curve: Curve, inside: tuple[int, int]) -> dict[str, Any]:
    """Fitted rates of what falls, in the rounds `inside`, and the log-log ones of each device."""
    found: dict[str, Any] = {
        name: {scale: fit(curve.rounds, curve.values[name], inside, scale) for scale in ("log-log", "semi-log")}
        for name in curve.values
        if name != "objective"
    }
    each = np.moveaxis(curve.devices["gradient_norm_sq"], -1, 0)
    return found | {"of_devices": [fit(curve.rounds, values, inside) for values in each]}


def dependence(found: Sequence[Curve]) -> list[dict[str, Any]]:
    """How what is left at the end depends on the spectral gap, over graphs, and on the number of devices.

    Log-log slopes over curves that differ in nothing else, where there are three; those that reach the solution leave
    nothing.
    """
    names = ("gradient_norm_sq_mean", "consensus_error", "distance_to_solution")
    fits = []
    left = [curve for curve in found if not curve.values["distance_to_solution"][:, -1].mean() < REACHED]
    for flag, x in (("topology", "spectral gap"), ("devices", "devices")):
        for places in alike([curve.cells[0] for curve in left], flag):
            group = [left[place] for place in places]
            if flag == "devices":
                along = np.array([curve.cells[0].given.devices for curve in group], float)
            else:
                along = np.array([np.mean(np.array(curve.facts["spectral_gap"], float)) for curve in group])
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
