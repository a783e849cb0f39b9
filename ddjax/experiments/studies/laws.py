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
    """Predict slopes by quantity: `scale`, `value`, and whether it is a `bound` that slopes may lie below.

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
    settings, found = cell.settings, {}
    distils = settings.algorithm == "distillation" and plain(settings)
    # The bounds are for mixing that keeps the mean.
    keeping = resolve(settings).mixing in ("average", "choco", "push_sum") and not facts.get("loses_messages")
    averages = settings.algorithm in ("dsgd", "choco", "push_sum") and keeping

    def law(name: str, *curves: np.ndarray, bound: bool = False) -> None:
        """Let the quantity fall like the sum of these, so like the one that falls least."""
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
    """Say whether `ζ_t` falls with an infinite sum that is large in this run already."""
    known = schedule(settings.consensus_step_size_schedule)
    if known.power == 1:
        return facts["consensus_step_size"] * known.tau(settings.rounds) >= 10
    return known.power is not None and 0 < known.power < 1
