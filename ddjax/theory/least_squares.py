"""Linear devices with squared loss: the resting point of each form of consensus, in closed form and in float64."""

from typing import Any, NamedTuple

import numpy as np

from ddjax.errors import InputError
from ddjax.learning import infer_task
from ddjax.sharding import on_host
from ddjax.types import Problem

# Largest number of unknowns (devices times coefficients) of a joint system that is solved as one dense matrix.
LARGEST = 4000
# Eigenvalues below this fraction of the largest eigenvalue are treated as zero.
RANK = 1e-10


class NormalEquations(NamedTuple):
    """Normal equations of devices with data `A_n, y_n` and reference inputs `X`.

    The last column of the inputs holds ones, for the bias.

    Attributes:
      own: `A_nᵀA_n / m_n`, `[N, P + 1, P + 1]`.
      sides: `A_nᵀy_n / m_n`, `[N, P + 1, K]`.
      shared: `XᵀX / R`, `[P + 1, P + 1]`.
    """

    own: np.ndarray
    sides: np.ndarray
    shared: np.ndarray


def normal_equations(problem: Problem, outputs: int) -> NormalEquations:
    """Make the normal equations of a problem; labels become one-hot targets for `K = outputs` classes.

    Raises:
      InputError: if some devices do not know the whole reference set.

    Examples:
      >>> import ddjax
      >>> from ddjax.theory.least_squares import normal_equations
      >>> data = ddjax.load_dataset("synthetic_regression:5", devices=4, train=400)
      >>> problem = ddjax.make_problem(data, ddjax.build_topology("ring", 4).network)
      >>> normal_equations(problem, outputs=1).own.shape  # 5 inputs and the bias
      (4, 6, 6)
    """
    if problem.known is not None:
        raise InputError(
            "normal equations exist only if all devices know the whole reference set; leave out --reference_known"
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
    """Add `½ν ‖θ_n‖²` to the loss of each device; `θ_n` includes the bias.

    Examples:
      >>> added = least_squares.ridged(equations, 0.5).own - equations.own
      >>> np.allclose(added, 0.5 * np.eye(4))
      True
    """
    return equations._replace(own=equations.own + ridge * np.eye(len(equations.shared)))


def co_regularized(equations: NormalEquations, weight: float) -> np.ndarray:
    """Minimize `Σ_n [½/m_n ‖A_n θ_n − y_n‖² + ρ/(2R) ‖X θ_n − X θ̄‖²]`, `θ̄ = mean_m θ_m` (Brefeld et al., ICML 2006).

    Device `n` has the system `(H_n + ρ G) θ_n − ρ G θ̄ = A_nᵀ y_n/m_n`. Given `θ̄`, these are `N` separate systems, and
    their mean is one system for `θ̄`, so no system is larger than one model. If the data do not determine a solution,
    each system gives its solution of least norm.

    Args:
      equations: normal equations of the problem; `H_n` and `G` are `own` and `shared`. To add a ridge, pass the result
        of `ridged`.
      weight: weight `ρ` of the reference set.

    Returns:
      Coefficients `[N, P + 1, K]` float64; the last row is the bias.

    Examples:
      >>> import numpy as np
      >>> from ddjax.theory.least_squares import NormalEquations, co_regularized
      >>> one = np.ones((1, 1))
      >>> equations = NormalEquations(np.stack([one, one]), np.stack([0 * one, 2 * one]), one)
      >>> for weight in (0, 1, 100):  # two devices whose own solutions are 0 and 2
      ...     print(co_regularized(equations, weight).ravel().round(2).tolist())
      [0.0, 2.0]
      [0.5, 1.5]
      [0.99, 1.01]
    """
    gram = weight * equations.shared
    inverses = np.linalg.pinv(equations.own + gram, hermitian=True)
    alone = inverses @ equations.sides
    coupling = np.eye(len(gram)) - inverses.mean(0) @ gram
    average = np.linalg.lstsq(coupling, alone.mean(0))[0]
    return alone + inverses @ gram @ average


def resting_point(equations: NormalEquations, weight: float, following: np.ndarray) -> np.ndarray:
    """Solve for the resting point of devices whose targets are `z = F s`.

    The resting point satisfies `(H_n + ρ G) θ_n − ρ G Σ_m F[n, m] θ_m = A_nᵀy_n / m_n`. For `F = 11ᵀ/N`, this point is
    the solution of `co_regularized`. If the data do not determine a solution, the result is the solution of least norm.

    Args:
      equations: normal equations of the problem; `H_n` and `G` are `own` and `shared`.
      weight: weight `ρ` of the reference set.
      following: matrix `F` `[N, N]` (see `follows`).

    Returns:
      Coefficients `[N, P + 1, K]`.

    Raises:
      InputError: if there are more than `LARGEST` unknowns.

    Examples:
      >>> following = least_squares.follows("tracking", matrix)
      >>> found = least_squares.resting_point(equations, 1.0, following)
      >>> np.allclose(found, least_squares.co_regularized(equations, 1.0))
      True
    """
    outputs = equations.sides.shape[-1]
    flat = equations.sides.reshape(-1, outputs)
    return np.linalg.lstsq(joint_system(equations, weight, following), flat)[0].reshape(equations.sides.shape)


def joint_system(equations: NormalEquations, weight: float, following: np.ndarray) -> np.ndarray:
    """Make the matrix `[N (P + 1), N (P + 1)]` of the systems of all devices, which are coupled by the targets.

    Examples:
      >>> following = least_squares.follows("neighbors", matrix)
      >>> least_squares.joint_system(equations, 1.0, following).shape  # 4 devices, 3 inputs and the bias
      (16, 16)
    """
    devices, features, _ = equations.sides.shape
    if devices * features > LARGEST:
        raise InputError(
            f"{devices} devices with {features} coefficients each have {devices * features} unknowns, but resting "
            f"points and rates are computed for at most {LARGEST}; use fewer devices or fewer inputs"
        )
    joint = np.kron(np.eye(devices) - following, weight * equations.shared)
    for n, own in enumerate(equations.own):
        rows = slice(n * features, (n + 1) * features)
        joint[rows, rows] += own
    return joint


def follows(consensus: str, matrix: np.ndarray, step_size: float = 0.0) -> np.ndarray:
    """Return the matrix `F` that gives the targets at rest, `z = F s`, for constant soft decisions `s`.

    Args:
      consensus: form of the consensus step. `tracking` has `F = 11ᵀ/N`. `gradient` has `F = ζ (I − W + ζ I)⁻¹`, from
        the resting point of `z ← W z + ζ (s − z)`. `neighbors` has `F = W`.
      matrix: mixing matrix `W` `[N, N]`, doubly stochastic.
      step_size: consensus step size `ζ`; as `ζ` goes to zero, `F` goes to `11ᵀ/N`.

    Examples:
      >>> from ddjax.networks import build_topology
      >>> from ddjax.theory.least_squares import follows
      >>> matrix = build_topology("ring", 4).matrices[0].toarray()
      >>> for consensus in ("neighbors", "gradient", "tracking"):  # weights in the target of device 0
      ...     print(consensus, follows(consensus, matrix, 0.1)[0].round(2).tolist())
      neighbors [0.33, 0.33, 0.0, 0.33]
      gradient [0.33, 0.23, 0.2, 0.23]
      tracking [0.25, 0.25, 0.25, 0.25]
    """
    devices = len(matrix)
    if consensus == "gradient" and step_size:
        return step_size * np.linalg.inv((1 + step_size) * np.eye(devices) - matrix)
    return matrix if consensus == "neighbors" else np.full((devices, devices), 1 / devices)


def averaged(equations: NormalEquations) -> np.ndarray:
    """Find the resting point `[N, P + 1, K]` of devices that share parameters: the minimum of the mean loss.

    Examples:
      >>> together = least_squares.averaged(equations)
      >>> together.shape, bool((together == together[0]).all())
      ((4, 4, 1), True)
    """
    common = np.linalg.lstsq(equations.own.mean(0), equations.sides.mean(0))[0]
    return np.broadcast_to(common, equations.sides.shape)


def determined(equations: NormalEquations, weight: float) -> np.ndarray:
    """Return the directions `[N (P + 1), r]` in which the joint objective is curved.

    In all other directions, the data determine nothing, and the devices keep their initial coefficients.

    Raises:
      InputError: if there are more than `LARGEST` unknowns.

    Examples:
      >>> least_squares.determined(equations, 1.0).shape  # all directions
      (16, 16)
    """
    devices = len(equations.own)
    return _curved(joint_system(equations, weight, np.full((devices, devices), 1 / devices)))


def determined_together(equations: NormalEquations) -> np.ndarray:
    """Return the directions `[P + 1, r]` in which the mean loss of devices that share parameters is curved.

    Examples:
      >>> least_squares.determined_together(equations).shape  # all directions
      (4, 4)
    """
    return _curved(equations.own.mean(0))


def _curved(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return vectors[:, values > RANK * values.max()]


def distance(coefficients: np.ndarray, solution: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Compute `‖θ − θ*‖ / ‖θ*‖` over all devices, in the directions that the data determine.

    Args:
      coefficients: `[T, N, P + 1, K]`, coefficients in several rounds.
      solution: `[N, P + 1, K]`, the resting point `θ*`.
      directions: orthonormal directions: `[N (P + 1), r]`, or `[P + 1, r]` if they are the same for every device.

    Returns:
      Distances `[T]`.

    Examples:
      >>> solution = least_squares.co_regularized(equations, 1.0)
      >>> rounds = np.stack([0 * solution, 0.9 * solution, solution])
      >>> least_squares.distance(rounds, solution, least_squares.determined(equations, 1.0)).round(3).tolist()
      [1.0, 0.1, 0.0]
    """

    def along(theta: np.ndarray) -> np.ndarray:
        split = theta.reshape(len(theta), -1, len(directions), theta.shape[-1])
        return np.einsum("dr,tbdk->tbrk", directions, split).reshape(len(theta), -1)

    return np.linalg.norm(along(coefficients - solution), axis=1) / np.linalg.norm(along(solution[None]))
