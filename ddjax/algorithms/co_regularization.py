"""Co-regularized least squares: where distillation between linear models with squared losses ends, in closed form."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.algorithms.registry import ALGORITHMS, AlgorithmEntry
from ddjax.errors import InputError, check_number
from ddjax.learning import Population
from ddjax.theory import least_squares
from ddjax.types import Algorithm, Info, Problem, Traffic, working_dtype


class State(NamedTuple):
    """The solution.

    Attributes:
      round: `[]` rounds done.
      coefficients: `[N, P + 1, K]` of each device, the last row the bias.
    """

    round: jax.Array
    coefficients: jax.Array


def co_regularization(population: Population, *, distillation_weight: float, ridge: float = 0.0) -> Algorithm:
    """Solves for where distillation ends: nothing is trained or sent, and all data are in one place.

    The models are linear with squared loss, the divergence is the squared distance. For numbers to predict it is where
    `distillation` by `tracking` ends. Labels become one-hot targets, and what the models predict is not confined to the
    simplex. With `A_n, y_n` the `m_n` examples of device `n` and `X` the `R` reference inputs it minimizes

    `Σ_n [½/m_n ‖A_n θ_n − y_n‖² + ν/2 ‖θ_n‖² + ρ/(2R) ‖X θ_n − X θ̄‖²]`, `θ̄ = mean_m θ_m`.

    Brefeld, Gärtner, Scheffer, Wrobel (ICML 2006) minimize sums, not means: `Σ_n [‖A_n θ_n − y_n‖² + ν' ‖θ_n‖²] +
    λ Σ_{n,m} ‖X θ_n − X θ_m‖²` for linear kernels. Where all devices hold `m` examples this is the same problem with
    `ν' = m ν` and `λ = ρ m / (2 N R)`, since `Σ_{n,m} ‖p_n − p_m‖² = 2N Σ_n ‖p_n − p̄‖²`. Where they hold different
    numbers, there a device weighs as its examples do, and here devices weigh the same. Their models are views of other
    features or kernels, whose examples they share; here each device has examples of its own.

    Args:
      population: as many linear models as there are solutions; nothing else of them is used.
      distillation_weight: `ρ`.
      ridge: `ν ≥ 0`; of the bias, too.

    Raises:
      InputError: models that are not linear, or a negative `ν`.
    """
    check_number("ridge", ridge)
    devices, outputs, features = linear_shapes(population, "co_regularization")

    def init(key: jax.Array, problem: Problem) -> State:
        return State(jnp.zeros((), jnp.int32), jnp.zeros((devices, features + 1, outputs)))

    def start(state: State, problem: Problem) -> State:
        equations = least_squares.ridged(least_squares.normal_equations(problem, outputs), ridge)
        solution = least_squares.co_regularized(equations, distillation_weight)
        return state._replace(coefficients=jnp.asarray(solution, working_dtype()))

    def round(key: jax.Array, state: State, problem: Problem) -> tuple[State, Info]:
        none = jnp.zeros(devices)
        return state._replace(round=state.round + 1), Info(none, none, jnp.zeros(devices, jnp.int32), Traffic())

    def predict(state: State, x: jax.Array) -> jax.Array:
        return linear_predictions(state.coefficients, x)

    return Algorithm(init, round, predict, lambda problem: Traffic(), population.check, start)


def linear_shapes(population: Population, algorithm: str) -> tuple[int, int, int]:
    """`N, K, P` of linear devices; raises `InputError` for others."""
    groups = jax.eval_shape(population.init, jax.random.key(0))
    if any(set(group.params) != {"dense"} for group in groups):
        raise InputError(f"{algorithm} solves for linear models of all features; give --models=linear, without views")
    _, outputs, features = groups[0].params["dense"]["kernel"].shape
    return population.size, outputs, features


def linear_predictions(coefficients: jax.Array, x: jax.Array) -> jax.Array:
    """`[N, P + 1, K]`, the last row the bias, and `[B, …]` → `[N, B, K]`."""
    return jnp.einsum("bp,npk->nbk", x.reshape(x.shape[0], -1), coefficients[:, :-1]) + coefficients[:, None, -1]


ALGORITHMS.add(
    AlgorithmEntry(
        "co_regularization",
        co_regularization,
        settings={"distillation_weight": "distillation_weight", "ridge": "ridge"},
    )
)
