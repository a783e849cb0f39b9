"""Linear devices with squared loss: where each way to reach consensus ends, in closed form, in float64."""

from typing import Any, NamedTuple

import numpy as np

from ddjax.errors import InputError
from ddjax.learning import infer_task
from ddjax.sharding import on_host
from ddjax.types import Problem

# Unknowns, devices times coefficients, up to which the joint system is solved as one dense matrix.
LARGEST = 4000
# Eigenvalues below this part of the largest are none.
RANK = 1e-10


class NormalEquations(NamedTuple):
    """The normal equations of devices with data `A_n, y_n` and reference inputs `X`.

    The last column of the inputs is ones, for the bias.

    Attributes:
      own: `[N, P + 1, P + 1]` `A_nᵀA_n / m_n`.
      sides: `[N, P + 1, K]` `A_nᵀy_n / m_n`.
      shared: `[P + 1, P + 1]` `XᵀX / R`.
    """

    own: np.ndarray
    sides: np.ndarray
    shared: np.ndarray


def normal_equations(problem: Problem, outputs: int) -> NormalEquations:
    """Makes the normal equations of a problem; labels become one-hot targets of `K = outputs` classes.

    Raises:
      InputError: devices that do not know the whole reference set.
    """
    if problem.known is not None:
        raise InputError(
            "normal equations are of devices that know the whole reference set; leave out --reference_known"
        )

    def features(inputs: Any) -> np.ndarray:
        flat = np.asarray(inputs, np.float64).reshape(len(inputs), -1)
        return np.hstack([flat, np.ones((len(flat), 1))])

    x, y = features(problem.x), np.asarray(infer_task(problem.y).targets(np.asarray(problem.y), outputs), np.float64)
    held = [
        rows[:size]
        for rows, size in zip(on_host(problem.private_indices), on_host(problem.private_counts), strict=True)
    ]
    reference = features(problem.reference)
    return NormalEquations(
        np.array([x[rows].T @ x[rows] / len(rows) for rows in held]),
        np.array([x[rows].T @ y[rows] / len(rows) for rows in held]),
        reference.T @ reference / len(reference),
    )


def ridged(equations: NormalEquations, ridge: float) -> NormalEquations:
    """The normal equations with `½ν ‖θ_n‖²` added to each device's loss, of which the bias is a part."""
    return equations._replace(own=equations.own + ridge * np.eye(len(equations.shared)))


def co_regularized(equations: NormalEquations, weight: float) -> np.ndarray:
    """Minimizes `Σ_n [½/m_n ‖A_n θ_n − y_n‖² + ρ/(2R) ‖X θ_n − X θ̄‖²]`, `θ̄ = mean_m θ_m` (Brefeld et al., ICML 2006).

    Device by device `(H_n + ρ G) θ_n − ρ G θ̄ = A_nᵀ y_n/m_n`. Given `θ̄` these fall apart into `N` systems, and their
    mean is one system for `θ̄`: no system is larger than one model. Where data do not determine a solution, that of
    least norm is taken of each of these systems.

    Args:
      equations: of the problem; `H_n` and `G` are its `own` and `shared`. With a ridge they are `ridged`.
      weight: `ρ`.

    Returns:
      `[N, P + 1, K]` float64, the last row the bias.
    """
    gram = weight * equations.shared
    inverses = np.linalg.pinv(equations.own + gram, hermitian=True)
    alone = inverses @ equations.sides
    coupling = np.eye(len(gram)) - inverses.mean(0) @ gram
    average = np.linalg.lstsq(coupling, alone.mean(0))[0]
    return alone + inverses @ gram @ average


def resting_point(equations: NormalEquations, weight: float, following: np.ndarray) -> np.ndarray:
    """Solves for where devices with targets `z = F s` rest: `(H_n + ρ G) θ_n − ρ G Σ_m F[n, m] θ_m = A_nᵀy_n / m_n`.

    With `F = 11ᵀ/N` it is `co_regularized`. Where the data do not determine a solution, the one of least norm.

    Args:
      equations: of the problem; `H_n` and `G` are its `own` and `shared`.
      weight: `ρ`.
      following: `F` `[N, N]`, see `follows`.

    Returns:
      `[N, P + 1, K]`.

    Raises:
      InputError: more unknowns than can be solved for.
    """
    outputs = equations.sides.shape[-1]
    flat = equations.sides.reshape(-1, outputs)
    return np.linalg.lstsq(joint_system(equations, weight, following), flat)[0].reshape(equations.sides.shape)


def joint_system(equations: NormalEquations, weight: float, following: np.ndarray) -> np.ndarray:
    """`[N (P + 1), N (P + 1)]` of all devices' systems, coupled by their targets."""
    devices, features, _ = equations.sides.shape
    if devices * features > LARGEST:
        raise InputError(
            f"{devices} devices with {features} coefficients each are more than resting points and rates are computed "
            f"for, {LARGEST} unknowns"
        )
    joint = np.kron(np.eye(devices) - following, weight * equations.shared)
    for n, own in enumerate(equations.own):
        rows = slice(n * features, (n + 1) * features)
        joint[rows, rows] += own
    return joint


def follows(consensus: str, matrix: np.ndarray, step_size: float = 0.0) -> np.ndarray:
    """How targets follow soft decisions that do not move: `z = F s`.

    Args:
      consensus: `tracking`, `F = 11ᵀ/N`; `gradient`, the rest of `z ← W z + ζ (s − z)`, `F = ζ (I − W + ζ I)⁻¹`;
        `neighbors`, `F = W`.
      matrix: `W` `[N, N]`, doubly stochastic.
      step_size: `ζ`; as it goes to zero, `F` goes to `11ᵀ/N`.
    """
    devices = len(matrix)
    if consensus == "gradient" and step_size:
        return step_size * np.linalg.inv((1 + step_size) * np.eye(devices) - matrix)
    return matrix if consensus == "neighbors" else np.full((devices, devices), 1 / devices)


def averaged(equations: NormalEquations) -> np.ndarray:
    """The point where devices that share parameters come to rest, the minimum of the mean loss. `[N, P + 1, K]`."""
    common = np.linalg.lstsq(equations.own.mean(0), equations.sides.mean(0))[0]
    return np.broadcast_to(common, equations.sides.shape)


def determined(equations: NormalEquations, weight: float) -> np.ndarray:
    """Directions `[N (P + 1), r]` in which the joint objective is curved.

    In the others the data say nothing, and devices stay as they began.

    Raises:
      InputError: more unknowns than can be solved for.
    """
    devices = len(equations.own)
    return _curved(joint_system(equations, weight, np.full((devices, devices), 1 / devices)))


def determined_together(equations: NormalEquations) -> np.ndarray:
    """Directions `[P + 1, r]` in which the mean loss of devices that share parameters is curved."""
    return _curved(equations.own.mean(0))


def _curved(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return vectors[:, values > RANK * values.max()]


def distance(coefficients: np.ndarray, solution: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """`‖θ − θ*‖ / ‖θ*‖` over all devices, in the directions that the data determine.

    Args:
      coefficients: `[T, N, P + 1, K]` of several rounds.
      solution: `[N, P + 1, K]`.
      directions: orthonormal, `[N (P + 1), r]` or, of each device, `[P + 1, r]`.

    Returns:
      `[T]`.
    """

    def along(theta: np.ndarray) -> np.ndarray:
        split = theta.reshape(len(theta), -1, len(directions), theta.shape[-1])
        return np.einsum("dr,tbdk->tbrk", directions, split).reshape(len(theta), -1)

    return np.linalg.norm(along(coefficients - solution), axis=1) / np.linalg.norm(along(solution[None]))
