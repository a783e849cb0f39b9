"""Speed at which linear devices with squared loss come to rest, in closed form and in float64."""

import numpy as np
import scipy.optimize

from ddjax.theory.least_squares import RANK, NormalEquations, determined, joint_system


def factor(
    equations: NormalEquations, weight: float, step_size: float, consensus: str, matrix: np.ndarray, zeta: float = 0.0
) -> float:
    """Compute the factor by which the distance to the resting point shrinks per round, with only the slowest mode left.

    In a direction that shrinks by the factor `q` per round, the targets are `F(q) s`, where `F(q)` is `ζ (q I − W + ζ
    I)⁻¹` for `gradient`, `W` for `neighbors`, and `(1 − 1/q) (q I − W)⁻¹ W` for `tracking`. The factor solves `q = 1 −
    η ν`, where `ν` is the smallest eigenvalue of twice the joint system of `resting_point`, with `F(q)` in place of
    `F`. For directed graphs, the symmetric part of `F` is used. For `gradient` and `tracking`, the result is never
    below the factor by which disagreement shrinks on the graph.

    Args:
      equations: normal equations of the problem.
      weight: weight `ρ` of the reference set.
      step_size: step size `η` of the devices.
      consensus: form of the consensus step.
      matrix: mixing matrix `W` `[N, N]`.
      zeta: consensus step size `ζ`, for `gradient`.

    Raises:
      InputError: if there are more than `least_squares.LARGEST` unknowns.

    Examples:
      >>> alone = np.eye(4)  # without neighbours, the smallest curvature of any device determines the factor
      >>> (smallest, _), _ = least_squares_rates.curvatures(equations, 0.0)
      >>> found = least_squares_rates.factor(equations, 0.0, 0.05, "neighbors", alone)
      >>> bool(np.isclose(found, 1 - 0.05 * smallest))
      True
    """
    identity, eigenvalues = np.eye(len(matrix)), np.linalg.eigvals(matrix)
    apart = np.delete(eigenvalues, np.argmin(np.abs(eigenvalues - 1)))
    mixing = np.abs(apart - (zeta if consensus == "gradient" else 0)).max(initial=0.0)
    directions = determined(equations, weight)

    def short(lost: float) -> float:
        """Compute `η ν − (1 − q)`, where `1 − q` is `lost`."""
        q = 1 - lost
        if consensus == "gradient":
            following = zeta * np.linalg.inv((q + zeta) * identity - matrix)
        elif consensus == "tracking":
            following = -lost / q * np.linalg.solve(q * identity - matrix, matrix)
        else:
            following = matrix
        joint = 2 * joint_system(equations, weight, (following + following.T) / 2)
        if directions.shape[1] < len(joint):
            joint = directions.T @ joint @ directions
        return step_size * np.linalg.eigvalsh(joint)[0] - lost

    if consensus == "neighbors":
        return 1 - short(0.0)
    least, most = 1e-12, (1 - mixing) if consensus == "tracking" else zeta
    most *= 1 - 1e-6
    if short(most) > 0:
        return float(mixing)
    return max(float(mixing), 1 - scipy.optimize.brentq(short, least, most, xtol=1e-15, rtol=1e-4))


def curvatures(equations: NormalEquations, weight: float) -> tuple[tuple[float, float], float]:
    """Compute the smallest positive and the largest eigenvalue of all `2 H_n`, and the largest eigenvalue of `2 ρ G`.

    Examples:
      >>> (smallest, largest), pull = least_squares_rates.curvatures(equations, 1.0)
      >>> smallest < largest, bool(np.isclose(pull, 2 * np.linalg.norm(equations.shared, 2)))
      (True, True)
    """
    own = 2 * np.linalg.eigvalsh(equations.own)
    positive = own[own > RANK * own.max()]
    pull = 2 * weight * np.linalg.eigvalsh(equations.shared).max()
    return (float(positive.min()), float(positive.max())), float(pull)
