"""How quickly linear devices with squared loss come to rest, in closed form, in float64."""

import numpy as np
import scipy.optimize

from ddjax.theory.least_squares import RANK, NormalEquations, determined, joint_system


def factor(
    equations: NormalEquations, weight: float, step_size: float, consensus: str, matrix: np.ndarray, zeta: float = 0.0
) -> float:
    """The factor by which distances shrink in a round once all but the slowest direction is gone.

    A direction that shrinks by `q` a round sees targets `F(q) s`: `ζ (q I − W + ζ I)⁻¹` of `gradient`, `W` of
    `neighbors`, `(1 − 1/q) (q I − W)⁻¹ W` of `tracking`. So `q = 1 − η ν`, with `ν` the smallest eigenvalue of the
    joint system of `resting_point`, twice, with `F(q)`: solved for `q`. No quicker than that, nor than the graph mixes.
    Of directed graphs the symmetric part of `F` is taken.

    Args:
      equations: of the problem.
      weight: `ρ`.
      step_size: `η`.
      consensus: the form of the consensus step.
      matrix: `W` `[N, N]`.
      zeta: `ζ`, of `gradient`.

    Raises:
      InputError: more unknowns than can be solved for.
    """
    identity, eigenvalues = np.eye(len(matrix)), np.linalg.eigvals(matrix)
    apart = np.delete(eigenvalues, np.argmin(np.abs(eigenvalues - 1)))
    mixing = np.abs(apart - (zeta if consensus == "gradient" else 0)).max(initial=0.0)
    directions = determined(equations, weight)

    def short(lost: float) -> float:
        """`η ν` less `1 − q`."""
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
    """Smallest positive and largest eigenvalue of the devices' Hessians `2 H_n`, and the largest of `2 ρ G`."""
    own = 2 * np.linalg.eigvalsh(equations.own)
    positive = own[own > RANK * own.max()]
    pull = 2 * weight * np.linalg.eigvalsh(equations.shared).max()
    return (float(positive.min()), float(positive.max())), float(pull)
