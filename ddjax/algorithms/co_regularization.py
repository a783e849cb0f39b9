"""Co-regularized least squares: where distillation between linear models with squared losses ends, in closed form."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddjax import tasks
from ddjax.algorithms.averaging import parameters
from ddjax.learners import Learners
from ddjax.types import Algorithm, Info, Problem, Traffic, working_dtype


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


def solutions(problem: Problem, outputs: int, weight: float) -> np.ndarray:
    """What linear devices end at that distil with squared loss, squared distance and `ρ = weight`.

    Args:
      problem: labels become one-hot targets, numbers are the targets.
      outputs: `K`.
      weight: `ρ`.

    Returns:
      `[N, P + 1, K]` float64, the last row the bias.
    """
    targets = tasks.of(problem.y).targets(np.asarray(problem.y), outputs)
    private, sizes, reference = map(np.asarray, (problem.private, problem.sizes, problem.reference))
    return co_regularized_least_squares(np.asarray(problem.x), targets, private, sizes, reference, float(weight))


def co_regularization(learners: Learners, *, distillation_weight: float) -> Algorithm:
    """The closed form as a system: there from the start, nothing is trained or sent, all data are in one place.

    The models are linear with squared loss, the divergence is the squared distance. Of numbers it is where
    `distillation` by `tracking` ends; of labels, which become one-hot targets, what the models predict is not confined
    to the simplex.

    Args:
      learners: as many linear models as there are solutions; nothing else of them is used.
      distillation_weight: `ρ`.
    """
    devices = learners.size
    _, outputs, features = parameters(learners)["dense"]["kernel"].shape

    def solve(problem: Problem, weight: float) -> np.ndarray:
        return solutions(problem, outputs, weight).astype(working_dtype())

    def init(key: jax.Array, problem: Problem) -> State:
        shape = jax.ShapeDtypeStruct((devices, features + 1, outputs), working_dtype())
        return State(jnp.zeros((), jnp.int32), jax.pure_callback(solve, shape, problem, distillation_weight))

    def round(key: jax.Array, state: State, problem: Problem) -> tuple[State, Info]:
        none = jnp.zeros(devices)
        return state._replace(round=state.round + 1), Info(none, none, jnp.zeros(devices, jnp.int32), Traffic())

    def predict(state: State, x: jax.Array) -> jax.Array:
        flat = x.reshape(x.shape[0], -1)
        return jnp.einsum("bp,npk->nbk", flat, state.coefficients[:, :-1]) + state.coefficients[:, None, -1]

    return Algorithm(init, round, predict, lambda problem: Traffic())
