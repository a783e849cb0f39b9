"""Rates: measured slopes with their intervals, and the step size that a problem and a graph allow."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from scipy import integrate

from ddjax.errors import InputError


class Slope(NamedTuple):
    """Fitted rate.

    Attributes:
      value: least-squares slope, averaged over seeds.
      low: lower end of the 95 % percentile-bootstrap interval over seeds. The interval is too narrow if there are few
        seeds, and NaN if there are fewer than three.
      high: upper end of the interval.
    """

    value: float
    low: float
    high: float


def slope(x: np.ndarray, values: np.ndarray, window: tuple[float, float], scale: str = "log-log") -> Slope:
    """Fit the rate at which a quantity falls: `p` in `C x^p` (`log-log`), or `r` in `C e^(r x)` (`semi-log`).

    Args:
      x: `[T]` rounds, or another quantity on which the values depend.
      values: `[S, T]` values for each seed; values that are not positive and finite are left out.
      window: first and last `x` of the fit.
      scale: `log-log` or `semi-log`.

    Raises:
      InputError: if the window has fewer than two usable points.

    Examples:
      >>> import numpy as np
      >>> from ddjax.theory.rates import slope
      >>> rounds = np.arange(1, 1001)
      >>> round(slope(rounds, 5 / np.sqrt(rounds)[None], window=(10, 1000)).value, 6)
      -0.5
    """
    inside = (x > 0) & (x >= window[0]) & (x <= window[1])
    found = []
    for seed in values:
        usable = inside & np.isfinite(seed) & (seed > 0)
        if usable.sum() < 2:
            raise InputError(f"a slope needs two points between {window[0]} and {window[1]}, got {usable.sum()}")
        along = np.log(x[usable]) if scale == "log-log" else x[usable].astype(float)
        found.append(np.polyfit(along, np.log(seed[usable]), 1)[0])
    low = high = np.nan
    if len(found) > 2:
        from scipy import stats  # slow to import

        low, high = stats.bootstrap(
            (found,), np.mean, method="percentile", rng=np.random.default_rng(0)
        ).confidence_interval
    return Slope(float(np.mean(found)), float(low), float(high))


def running_average(rounds: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Compute `Σ_{s ≤ t} η_s v_s / Σ_{s ≤ t} η_s` by the trapezoidal rule.

    Theorems on stochastic gradients are about this average.

    Args:
      rounds: `[T]` rounds.
      values: `[…, T]` values `v` in these rounds.
      weights: `[T]` weights `η` in these rounds.

    Examples:
      >>> import numpy as np
      >>> from ddjax.theory.rates import running_average
      >>> running_average(np.arange(4), np.array([4.0, 4, 4, 4]), np.ones(4)).tolist()
      [4.0, 4.0, 4.0, 4.0]
    """
    total = integrate.cumulative_trapezoid(weights * values, rounds, initial=0) + weights[0] * values[..., :1]
    return total / (integrate.cumulative_trapezoid(weights, rounds, initial=0) + weights[0])


def mixing_decay(matrices: Sequence[scipy.sparse.csr_array]) -> float:
    """Measure the factor by which disagreement shrinks per round of mixing alone, `x ← W_t x`, in float64.

    Theory gives `|λ₂|` for a fixed doubly stochastic `W`. If one round ends the disagreement, the factor is 0. If two
    complex eigenvalues have the same modulus, the disagreement oscillates. The factor is therefore fitted over 40 `N`
    rounds (at least 400), without the first quarter. The vector is renormalized along the way, so that it does not
    vanish in rounding errors.

    Args:
      matrices: one matrix `[N, N]`, or the matrices of a cycle.

    Examples:
      >>> from ddjax.networks import build_topology
      >>> from ddjax.theory.rates import mixing_decay
      >>> topology = build_topology("ring", 16)
      >>> round(mixing_decay(topology.matrices), 3), round(1 - topology.spectral_gap, 3)
      (0.949, 0.949)
    """
    dense = [matrix.toarray() for matrix in matrices]
    devices = dense[0].shape[0]
    rounds = max(400, 40 * devices)
    x: Any = np.random.default_rng(0).normal(size=devices)
    x -= x.mean()
    size, logs = 0.0, np.empty(rounds)
    for t in range(rounds):
        norm = np.linalg.norm(x)
        if norm < 1e-14:
            return 0.0
        x, size = x / norm, size + np.log(norm)
        logs[t] = size
        x = dense[t % len(dense)] @ x
        x -= x.mean()
    fitted = np.arange(rounds // 4, rounds)
    return float(np.exp(np.polyfit(fitted, logs[fitted], 1)[0]))


def radius(step_size: float, curvature: float, pull: float, eigenvalue: complex, consensus: str, zeta: float) -> float:
    """Compute the factor by which one mode of full-batch distillation shrinks per round; below 1, the mode is stable.

    All models are linear. Let all devices have the same Hessian, with curvature `h` in some direction, and let the
    distillation term have curvature `c` in that direction. The factors `q` of the mode of the graph with eigenvalue `λ`
    then satisfy `(q − 1) + η [h + c − c T(q)] = 0`. `T` describes how the target follows the soft decision: `λ (q − 1)
    / (q (q − λ))` for `tracking`, `ζ / (q − λ + ζ)` for `gradient`, and `λ` for `neighbors`.

    Args:
      step_size: step size `η` of the devices.
      curvature: curvature `h`.
      pull: curvature `c` of the distillation term.
      eigenvalue: eigenvalue `λ` of the mixing matrix.
      consensus: form of the consensus step.
      zeta: consensus step size `ζ`, for `gradient`.

    Returns:
      The largest modulus of the factors `q`.

    Examples:
      >>> round(rates.radius(0.1, 1.0, 2.0, 1.0, "neighbors", 0.0), 6)  # the mean of the devices: 1 − η h
      0.9
      >>> round(rates.radius(0.1, 1.0, 2.0, 0.5, "neighbors", 0.0), 6)  # distillation speeds up another mode
      0.8
    """
    numerator, denominator = {
        "tracking": (eigenvalue * np.array([1, -1]), np.array([1, -eigenvalue, 0])),
        "gradient": (np.array([zeta]), np.array([1, zeta - eigenvalue])),
        "neighbors": (np.array([eigenvalue]), np.array([1.0])),
    }[consensus]
    if consensus == "tracking" and abs(eigenvalue - 1) < 1e-9:  # the mean is tracked one round late
        numerator, denominator = np.array([1.0]), np.array([1.0, 0.0])
    inner: np.ndarray = np.polysub(np.polymul([curvature + pull], denominator), np.polymul([pull], numerator))
    return float(np.abs(np.roots(np.polyadd(np.polymul([1, -1], denominator), step_size * inner))).max())


def step_size(
    curvatures: tuple[float, float], pull: float, eigenvalues: np.ndarray, consensus: str, zeta: float = 0.0
) -> float:
    """Return half the step size `η` at which the slowest mode of full-batch distillation shrinks fastest.

    All models are linear. The step size is halved because the Hessians of the devices differ, which `radius` does not
    take into account.

    Args:
      curvatures: smallest positive and largest eigenvalue of the Hessians of the devices.
      pull: largest eigenvalue of the Hessian of the distillation term.
      eigenvalues: `[N]` eigenvalues of the mixing matrix.
      consensus: form of the consensus step.
      zeta: consensus step size `ζ`, for `gradient`.

    Examples:
      >>> eta = rates.step_size((1.0, 4.0), 0.0, np.ones(1), "neighbors")  # plain gradient descent
      >>> abs(eta / (0.5 * 2 / (1.0 + 4.0)) - 1) < 0.1  # half of the best step, up to the grid of the search
      True
    """
    eigenvalues = np.unique(np.round(eigenvalues, 9))
    corners = [(h, c) for h in curvatures for c in (0.0, pull)]

    def worst(eta: float) -> float:
        return max(radius(eta, h, c, value, consensus, zeta) for h, c in corners for value in eigenvalues)

    grid = np.geomspace(1e-5, 1.9, 80) / (curvatures[1] + pull)
    return 0.5 * float(min(grid, key=worst))
