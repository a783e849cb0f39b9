"""Co-regularized least squares: the closed-form limit of distillation between linear models with squared losses."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.algorithms.registry import ALGORITHMS, AlgorithmEntry
from ddjax.errors import InputError, check_number
from ddjax.learning import Population
from ddjax.theory import least_squares
from ddjax.types import Algorithm, Info, Problem, Traffic, working_dtype


class State(NamedTuple):
    """Solution of co-regularized least squares.

    Attributes:
      round: `[]` number of rounds done.
      coefficients: `[N, P + 1, K]` coefficients of each device; the last row is the bias.
    """

    round: jax.Array
    coefficients: jax.Array


def co_regularization(population: Population, *, distillation_weight: float, ridge: float = 0.0) -> Algorithm:
    """Compute the limit of distillation in closed form, from the data of all devices; nothing is trained or sent.

    The models are linear, the loss is squared, and the divergence is the squared distance. For regression, the solution
    is the limit of `distillation` with `consensus="tracking"`. For classification, labels become one-hot targets, and
    the predictions are not confined to the simplex. Let `A_n, y_n` be the `m_n` examples of device `n`, and `X` the `R`
    reference inputs. The solution minimizes

    `Σ_n [½/m_n ‖A_n θ_n − y_n‖² + ν/2 ‖θ_n‖² + ρ/(2R) ‖X θ_n − X θ̄‖²]`, where `θ̄ = mean_m θ_m`.

    Brefeld, Gärtner, Scheffer, Wrobel (ICML 2006) minimize sums instead of means. For linear kernels, their objective
    is `Σ_n [‖A_n θ_n − y_n‖² + ν' ‖θ_n‖²] + λ Σ_{n,m} ‖X θ_n − X θ_m‖²`. If all devices hold `m` examples, the two
    problems are the same with `ν' = m ν` and `λ = ρ m / (2 N R)`, because `Σ_{n,m} ‖p_n − p_m‖² = 2N Σ_n ‖p_n − p̄‖²`.
    If devices hold different numbers of examples, the paper weights each device by its number of examples, whereas
    devices have equal weights here. The paper's models see the same examples through different features or kernels;
    here, each device has its own examples.

    Args:
      population: one linear model per device. Only the number and the shapes of the models are used.
      distillation_weight: `ρ`.
      ridge: `ν ≥ 0`, which also applies to the bias.

    Raises:
      InputError: a model is not linear, or `ν` is negative.

    Examples:
      >>> algorithm = ddjax.co_regularization(population, distillation_weight=1.0)
      >>> algorithm.message_bytes(problem)  # nothing is sent
      Traffic(peer={}, up={}, down={})
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
    """Return the numbers `N, K, P` of devices, outputs and features; raise `InputError` if a model is not linear."""
    groups = jax.eval_shape(population.init, jax.random.key(0))
    if any(set(group.params) != {"dense"} for group in groups):
        raise InputError(
            f"{algorithm} needs linear models that see all features; use --models=linear without --feature_views"
        )
    _, outputs, features = groups[0].params["dense"]["kernel"].shape
    return population.size, outputs, features


def linear_predictions(coefficients: jax.Array, x: jax.Array) -> jax.Array:
    """Predict `[N, B, K]` from inputs `[B, …]` and coefficients `[N, P + 1, K]`, whose last row is the bias."""
    return jnp.einsum("bp,npk->nbk", x.reshape(x.shape[0], -1), coefficients[:, :-1]) + coefficients[:, None, -1]


ALGORITHMS.add(
    AlgorithmEntry(
        "co_regularization",
        co_regularization,
        settings={"distillation_weight": "distillation_weight", "ridge": "ridge"},
    )
)
