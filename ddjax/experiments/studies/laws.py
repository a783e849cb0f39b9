"""Slopes that theory predicts."""

from typing import Any

import numpy as np
from scipy import integrate

from ddjax.experiments.settings import Settings
from ddjax.experiments.studies.curves import plain, step_sizes, whole
from ddjax.experiments.sweeps.plan import Cell
from ddjax.experiments.usage import resolve
from ddjax.schedules import schedule
from ddjax.theory import rates


def theory(cell: Cell, facts: dict[str, Any], rounds: np.ndarray, inside: tuple[int, int]) -> dict[str, dict[str, Any]]:
    """Predict the slope of each quantity: its `scale`, its `value`, and whether the value is an upper `bound`.

    If a quantity falls like a power of step sizes, the slope of this power is fitted over the rounds in which the
    quantity is fitted, because `(1 + t/τ)^−a` reaches the slope `−a` only later. For consensus errors of stochastic
    methods, the orders below rest on our own arguments, not on theorems.

    - `tracking` with linear devices on all data and constant steps: in each round, the distance shrinks by the factor
      `least_squares_rates.factor`, and squared quantities shrink by its square.
    - The `gradient` form, if `ζ_t` falls but its sum diverges, and the run is long enough for `mean_n z_n` to reach the
      mean soft decision `s̄` (for `1/t`, this needs `ζ_0 τ ≥ 10`). On all data, the targets of devices differ by the
      order of `ζ_t` times the difference of their soft decisions, so the consensus error falls like `ζ_t²` or faster.
      For linear devices with different final models, the consensus error and the squared gradient norm at `z̄` fall
      exactly like `ζ_t²`, and the distance to the solution falls like `ζ_t` (`least_squares.follows`). Stochastic
      gradients move `s̄` by the order of `η_t` per round, and `mean_n z_n` averages these moves over `1/ζ_t` rounds. The
      consensus error then falls like `η_t² / ζ_t`, if this is more than `ζ_t²`.
    - Averaging of parameters, and `tracking` with stochastic gradients: devices differ by at most the order of `η_t`.
    - Averaging with stochastic gradients on non-convex losses: the squared gradient norm, averaged over rounds with
      weights `η_t`, is at most of the order of `(1 + Σ η_t²) / Σ η_t` (Ghadimi and Lan 2013; for D-SGD, Lian et al.
      2017 and Koloskova et al. 2020). If `η_t` falls like `t^−a`, this order is `t^−min(a, 1 − a)` in the end.
    """
    settings, found = cell.settings, {}
    distils = settings.algorithm == "distillation" and plain(settings)
    # The bounds hold for mixing that keeps the mean.
    keeping = resolve(settings).mixing in ("average", "choco", "push_sum") and not facts.get("loses_messages")
    averages = settings.algorithm in ("dsgd", "choco", "push_sum") and keeping

    def law(name: str, *curves: np.ndarray, bound: bool = False) -> None:
        """Predict that a quantity falls like the sum of the curves, and therefore like the curve that falls least."""
        fits = [rates.slope(rounds, curve[None], inside).value for curve in curves]
        found[name] = {"scale": "log-log", "value": max(fits), "bound": bound}

    eta, zeta = (step_sizes(settings, name, rounds) for name in ("learning_rate", "consensus_step_size"))
    if distils and settings.consensus == "gradient" and _unending(settings, facts):
        if whole(cell):
            law("consensus_error", zeta**2, bound=not facts["solved"])
            law("gradient_norm_sq_mean", zeta**2, bound=not facts["solved"])
            law("distance_to_solution", zeta)
        else:
            law("consensus_error", zeta**2, eta**2 / zeta, bound=True)
    apart = averages or (distils and settings.consensus == "tracking" and not whole(cell))
    if apart and settings.learning_rate_schedule != "constant":
        law("consensus_error", eta**2, bound=True)
    if averages and settings.batch_size:
        total, squares = (integrate.cumulative_trapezoid(each, rounds, initial=0) + each[0] for each in (eta, eta**2))
        law("gradient_norm_sq_running", 1 / total, squares / total, bound=True)
    rate = float(np.mean(facts.get("predicted_rate", 0)))
    if -rate * inside[0] > 2:  # so that only the slowest direction is left
        names = ("gradient_norm_sq_mean", "gradient_norm_sq_max", "own_gradient_norm_sq_mean", "consensus_error")
        for name, times in (dict.fromkeys(names, 2) | {"distance_to_solution": 1}).items():
            found[name] = {"scale": "semi-log", "value": times * rate, "bound": False}
    return found


def _unending(settings: Settings, facts: dict[str, Any]) -> bool:
    """Return whether `ζ_t` falls so slowly that its sum diverges and, for `1/t`, becomes large within this run."""
    known = schedule(settings.consensus_step_size_schedule)
    if known.power == 1:
        return facts["consensus_step_size"] * known.tau(settings.rounds) >= 10
    return known.power is not None and 0 < known.power < 1
