"""Co-regularized least squares: where distillation between linear models with squared losses ends, in closed form."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddjax.algorithms.averaging import parameters
from ddjax.learners import Learners
from ddjax.types import Algorithm, Info, Problem, Traffic


class State(NamedTuple):
    """The solution.

    Attributes:
      round: `[]` rounds done.
      coefficients: `[N, P + 1, K]` of each device, the last row the bias.
    """

    round: jax.Array
    coefficients: jax.Array


def co_regularized_least_squares(
    x: np.ndarray, y: np.ndarray, private: np.ndarray, sizes: np.ndarray, reference: np.ndarray, weight: float
) -> np.ndarray:
    """Minimizes `Σ_n [½/m_n ‖A_n θ_n − y_n‖² + ρ/(2R) ‖X θ_n − X θ̄‖²]`, `θ̄ = mean_m θ_m` (Brefeld et al., ICML 2006).

    Its normal equations, device by device, are `(A_nᵀA_n/m_n + ρ G) θ_n − ρ G θ̄ = A_nᵀ y_n/m_n` with `G = XᵀX/R`. Given
    `θ̄` they fall apart into `N` systems, and their mean is one system for `θ̄`: no system is larger than one model.
    Where data do not determine a solution, that of least norm is taken of each of these systems.

    Args:
      x: `[M, …]` inputs, flattened to `P` features and a constant.
      y: `[M, K]` targets.
      private: `[N, n_max]` rows of each device.
      sizes: `[N]` how many of them count, `m_n`.
      reference: `[R, …]`.
      weight: `ρ`.

    Returns:
      `[N, P + 1, K]` float64, the last row the bias.
    """

    def features(inputs: np.ndarray) -> np.ndarray:
        flat = np.asarray(inputs, np.float64).reshape(len(inputs), -1)
        return np.hstack([flat, np.ones((len(flat), 1))])

    shared = features(reference)
    gram = weight * shared.T @ shared / len(shared)
    inverses, sides = [], []
    for rows, size in zip(private, sizes, strict=True):
        own, target = features(x[rows[:size]]), np.asarray(y[rows[:size]], np.float64)
        inverses.append(np.linalg.pinv(own.T @ own / size + gram, hermitian=True))
        sides.append(own.T @ target / size)
    mean_side = np.mean([inverse @ side for inverse, side in zip(inverses, sides, strict=True)], axis=0)
    coupling = np.eye(len(gram)) - np.mean(inverses, axis=0) @ gram
    average = np.linalg.lstsq(coupling, mean_side)[0]
    return np.array([inverse @ (side + gram @ average) for inverse, side in zip(inverses, sides, strict=True)])


def co_regularization(learners: Learners, *, distillation_weight: float) -> Algorithm:
    """The closed form as a system: there from the start, nothing is trained or sent, all data are in one place.

    The targets are one-hot labels, the models linear with squared loss, the divergence is the squared distance; what
    the models predict is not confined to the simplex.

    Args:
      learners: as many linear models as there are solutions; nothing else of them is used.
      distillation_weight: `ρ`.
    """
    devices = learners.size
    _, classes, features = parameters(learners)["dense"]["kernel"].shape

    def solve(x, y, private, sizes, reference, weight) -> np.ndarray:
        targets = np.eye(classes)[np.asarray(y)]
        arrays = (np.asarray(x), targets, np.asarray(private), np.asarray(sizes), np.asarray(reference))
        return co_regularized_least_squares(*arrays, float(weight)).astype(np.float32)

    def init(key: jax.Array, problem: Problem) -> State:
        shape = jax.ShapeDtypeStruct((devices, features + 1, classes), jnp.float32)
        data = (problem.x, problem.y, problem.private, problem.sizes, problem.reference, distillation_weight)
        return State(jnp.zeros((), jnp.int32), jax.pure_callback(solve, shape, *data))

    def round(key: jax.Array, state: State, problem: Problem) -> tuple[State, Info]:
        none = jnp.zeros(devices)
        return state._replace(round=state.round + 1), Info(none, none, jnp.zeros(devices, jnp.int32), Traffic())

    def predict(state: State, x: jax.Array) -> jax.Array:
        flat = x.reshape(x.shape[0], -1)
        return jnp.einsum("bp,npk->nbk", flat, state.coefficients[:, :-1]) + state.coefficients[:, None, -1]

    return Algorithm(init, round, predict, lambda problem: Traffic())
