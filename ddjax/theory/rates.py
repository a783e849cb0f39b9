"""Rates: measured slopes with their intervals, and what step size a problem and a graph allow."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from scipy import integrate

from ddjax.errors import InputError


class Slope(NamedTuple):
    """A fitted rate.

    Attributes:
      value: mean over seeds of the least-squares slope.
      low, high: its 95 % percentile-bootstrap interval over seeds, which of few seeds is too narrow; NaN of less than
        three.
    """

    value: float
    low: float
    high: float


def slope(x: np.ndarray, values: np.ndarray, window: tuple[float, float], scale: str = "log-log") -> Slope:
    """The rate at which a quantity falls: `p` of `C x^p` (`log-log`), or `r` of `C e^(r x)` (`semi-log`).

    Args:
      x: `[T]` rounds, or what else it depends on.
      values: `[S, T]` of each seed; those that are not positive and finite are left out.
      window: first and last `x` of the fit.
      scale: `log-log` or `semi-log`.

    Raises:
      InputError: fewer than two usable points in the window.
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
    """`Σ_{s ≤ t} η_s v_s / Σ_{s ≤ t} η_s`, of which theorems on stochastic gradients speak, by the trapezoidal rule.

    Args:
      rounds: `[T]`.
      values: `[…, T]` `v` in these.
      weights: `[T]` `η` in these.
    """
    total = integrate.cumulative_trapezoid(weights * values, rounds, initial=0) + weights[0] * values[..., :1]
    return total / (integrate.cumulative_trapezoid(weights, rounds, initial=0) + weights[0])


def mixing_decay(matrices: Sequence[scipy.sparse.csr_array]) -> float:
    """The factor by which disagreement shrinks in a round of mixing alone, `x ← W_t x`, measured in float64.

    Theory: `|λ₂|` of a fixed doubly stochastic `W` (0 where one round ends it). Of two complex eigenvalues of one
    modulus the disagreement oscillates, so the factor is fitted over 40 `N` rounds, less the first quarter; it is
    renormed on the way, so that none is lost in rounding.

    Args:
      matrices: one `[N, N]`, or those of a cycle.
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
    """How fast one mode of full-batch distillation between linear models shrinks in a round; stable below 1.

    Of devices with one Hessian, whose curvature in a direction is `h` and of whose distillation term it is `c`, the
    mode of the graph with eigenvalue `λ` obeys `(q − 1) + η [h + c − c T(q)] = 0` for its factors `q`. `T` is how the
    target follows the soft decision: `λ (q − 1) / (q (q − λ))` (`tracking`), `ζ / (q − λ + ζ)` (`gradient`), `λ`
    (`neighbors`).

    Args:
      step_size: `η`.
      curvature: `h`.
      pull: `c`.
      eigenvalue: `λ` of the mixing matrix.
      consensus: the form of the consensus step.
      zeta: `ζ`, of `gradient`.
    """
    numerator, denominator = {
        "tracking": (eigenvalue * np.array([1, -1]), np.array([1, -eigenvalue, 0])),
        "gradient": (np.array([zeta]), np.array([1, zeta - eigenvalue])),
        "neighbors": (np.array([eigenvalue]), np.array([1.0])),
    }[consensus]
    if consensus == "tracking" and abs(eigenvalue - 1) < 1e-9:  # the mean is tracked a round late
        numerator, denominator = np.array([1.0]), np.array([1.0, 0.0])
    inner: np.ndarray = np.polysub(np.polymul([curvature + pull], denominator), np.polymul([pull], numerator))
    return float(np.abs(np.roots(np.polyadd(np.polymul([1, -1], denominator), step_size * inner))).max())


def step_size(
    curvatures: tuple[float, float], pull: float, eigenvalues: np.ndarray, consensus: str, zeta: float = 0.0
) -> float:
    """The step size `η` of full-batch distillation between linear models for which its slowest mode is quickest.

    Half of it, since devices' Hessians differ, which the modes of `radius` do not know.

    Args:
      curvatures: smallest positive and largest eigenvalue of the devices' Hessians.
      pull: largest eigenvalue of the distillation term's Hessian.
      eigenvalues: `[N]` of the mixing matrix.
      consensus: the form of the consensus step.
      zeta: `ζ`, of `gradient`.
    """
    eigenvalues = np.unique(np.round(eigenvalues, 9))
    corners = [(h, c) for h in curvatures for c in (0.0, pull)]

    def worst(eta: float) -> float:
        return max(radius(eta, h, c, value, consensus, zeta) for h, c in corners for value in eigenvalues)

    grid = np.geomspace(1e-5, 1.9, 80) / (curvatures[1] + pull)
    return 0.5 * float(min(grid, key=worst))
