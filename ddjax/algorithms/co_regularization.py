"""Co-regularized least squares: where distillation between linear models with squared losses ends, in closed form."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.algorithms.registry import ALGORITHMS, AlgorithmEntry
from ddjax.errors import InputError
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


def co_regularization(population: Population, *, distillation_weight: float) -> Algorithm:
    """Solves for where distillation ends: nothing is trained or sent, and all data are in one place.

    The models are linear with squared loss, the divergence is the squared distance. For numbers to predict it is where
    `distillation` by `tracking` ends. Labels become one-hot targets, and what the models predict is not confined to the
    simplex.

    Args:
      population: as many linear models as there are solutions; nothing else of them is used.
      distillation_weight: `ρ`.

    Raises:
      InputError: models that are not linear.
    """
    devices = population.size
    _, outputs, features = _linear_shapes(population)

    def init(key: jax.Array, problem: Problem) -> State:
        return State(jnp.zeros((), jnp.int32), jnp.zeros((devices, features + 1, outputs)))

    def start(state: State, problem: Problem) -> State:
        equations = least_squares.normal_equations(problem, outputs)
        solution = least_squares.co_regularized(equations, distillation_weight)
        return state._replace(coefficients=jnp.asarray(solution, working_dtype()))

    def round(key: jax.Array, state: State, problem: Problem) -> tuple[State, Info]:
        none = jnp.zeros(devices)
        return state._replace(round=state.round + 1), Info(none, none, jnp.zeros(devices, jnp.int32), Traffic())

    def predict(state: State, x: jax.Array) -> jax.Array:
        flat = x.reshape(x.shape[0], -1)
        return jnp.einsum("bp,npk->nbk", flat, state.coefficients[:, :-1]) + state.coefficients[:, None, -1]

    return Algorithm(init, round, predict, lambda problem: Traffic(), population.check, start)


def _linear_shapes(population: Population) -> tuple[int, int, int]:
    """`N, K, P` of linear devices; raises `InputError` for others."""
    groups = jax.eval_shape(population.init, jax.random.key(0))
    if any(set(group.params) != {"dense"} for group in groups):
        raise InputError("co_regularization is a closed form for linear models; give --models=linear")
    _, outputs, features = groups[0].params["dense"]["kernel"].shape
    return population.size, outputs, features


ALGORITHMS.add(
    AlgorithmEntry("co_regularization", co_regularization, settings={"distillation_weight": "distillation_weight"})
)
