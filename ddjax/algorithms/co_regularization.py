"""Co-regularized least squares: where distillation between linear models with squared losses ends, in closed form."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddjax.learning.population import Population
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
    """The closed form as a system: there from the start, nothing is trained or sent, all data are in one place.

    The models are linear with squared loss, the divergence is the squared distance. Of numbers it is where
    `distillation` by `tracking` ends; of labels, which become one-hot targets, what the models predict is not confined
    to the simplex.

    Args:
      population: as many linear models as there are solutions; nothing else of them is used.
      distillation_weight: `ρ`.
    """
    devices = population.size
    _, outputs, features = population.parameters["dense"]["kernel"].shape

    def solve(problem: Problem, weight: float) -> np.ndarray:
        equations = least_squares.normal_equations(problem, outputs)
        return least_squares.co_regularized(equations, float(weight)).astype(working_dtype())

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
