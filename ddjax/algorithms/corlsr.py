"""Co-regularized least squares by exchange of predictions: devices fit linear models, predict, and fit again."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddjax.algorithms.co_regularization import linear_predictions, linear_shapes
from ddjax.algorithms.registry import ALGORITHMS, AlgorithmEntry
from ddjax.errors import InputError, check_number
from ddjax.learning import Population
from ddjax.theory import least_squares
from ddjax.types import Algorithm, Info, Problem, Traffic, working_dtype


class State(NamedTuple):
    """State of the devices between rounds.

    Attributes:
      round: `[]` number of rounds done.
      coefficients: `[N, P + 1, K]` `θ_n` of each device; the last row is the bias.
      alone: `[N, P + 1, K]` contribution of a device's own examples to its solution.
      following: `[N, P + 1, P + 1]` matrix whose product with `Xᵀ q_n/R` is the contribution of the other devices to
        the solution, where `q_n` is the mean of their predictions.
    """

    round: jax.Array
    coefficients: jax.Array
    alone: jax.Array
    following: jax.Array


def corlsr(population: Population, *, distillation_weight: float, ridge: float = 0.0) -> Algorithm:
    """Distributed co-regularized least squares (Brefeld, Gärtner, Scheffer, Wrobel, ICML 2006).

    The objective is the same as in `co_regularization`, but the examples stay on their devices. In a round, every
    device sends its predictions `p_n = X θ_n` on all `R` reference examples to the server. The server sends back the
    mean of all predictions. A device removes its own contribution from this mean, which leaves the mean `q_n` of the
    other devices' predictions. Then it solves for `θ_n`:

    `(H_n + ν I + ρ' G) θ_n = A_nᵀ y_n/m_n + ρ'/R Xᵀ q_n`, where `ρ' = ρ (1 − 1/N)`, `H_n = A_nᵀA_n/m_n`, `G = XᵀX/R`.

    The method is block coordinate descent, except that all devices solve at the same time instead of one after another.
    It converges at a linear rate. If the minimizer is unique (`ν > 0`, or the private data determine it), the limit is
    the solution of `co_regularization`; otherwise the limit is one of the minimizers. Initially, `θ_n` is the solution
    for `q_n = 0`. A message in either direction contains `R · K` numbers. Without the server, each device would send
    one message to every other device.

    Args:
      population: linear models. Only their number and shapes are used.
      distillation_weight: `ρ`.
      ridge: `ν ≥ 0`, which also applies to the bias.

    Raises:
      InputError: a model is not linear, there is only one device, or `ν` is negative.

    Examples:
      >>> algorithm = ddjax.corlsr(population, distillation_weight=1.0)
      >>> algorithm.message_bytes(problem).up  # 359 predictions of 10 numbers
      {'predictions': 14360}
    """
    check_number("ridge", ridge)
    devices, outputs, features = linear_shapes(population, "corlsr")
    if devices < 2:
        raise InputError("corlsr needs at least two devices, because each learns from the predictions of the others")

    def init(key: jax.Array, problem: Problem) -> State:
        coefficients = jnp.zeros((devices, features + 1, outputs))
        following = jnp.zeros((devices, features + 1, features + 1))
        return State(jnp.zeros((), jnp.int32), coefficients, coefficients, following)

    def start(state: State, problem: Problem) -> State:
        equations = least_squares.ridged(least_squares.normal_equations(problem, outputs), ridge)
        weight = distillation_weight * (1 - 1 / devices)
        inverses = np.linalg.pinv(equations.own + weight * equations.shared, hermitian=True)
        alone = jnp.asarray(inverses @ equations.sides, working_dtype())
        return state._replace(
            coefficients=alone.copy(), alone=alone, following=jnp.asarray(weight * inverses, working_dtype())
        )

    def round(key: jax.Array, state: State, problem: Problem) -> tuple[State, Info]:
        reference = problem.reference[:].reshape(problem.reference.shape[0], -1)
        features = jnp.concatenate([reference, jnp.ones((len(reference), 1), reference.dtype)], axis=1)
        predictions = linear_predictions(state.coefficients, reference)
        others = (devices * predictions.mean(0) - predictions) / (devices - 1)
        pull = jnp.einsum("rp,nrk->npk", features, others) / len(features)
        coefficients = state.alone + state.following @ pull
        none, each = jnp.zeros(devices), jnp.ones(devices, jnp.int32)
        info = Info(none, none, jnp.zeros(devices, jnp.int32), Traffic(up={"predictions": each}, down={"mean": each}))
        return state._replace(round=state.round + 1, coefficients=coefficients), info

    def message_bytes(problem: Problem) -> Traffic:
        size = problem.reference.shape[0] * outputs * working_dtype().itemsize
        return Traffic(up={"predictions": size}, down={"mean": size})

    def predict(state: State, x: jax.Array) -> jax.Array:
        return linear_predictions(state.coefficients, x)

    return Algorithm(init, round, predict, message_bytes, population.check, start)


ALGORITHMS.add(
    AlgorithmEntry(
        "corlsr",
        corlsr,
        settings={"distillation_weight": "distillation_weight", "ridge": "ridge"},
        contents={
            "predictions": "predictions for {reference} reference examples",
            "mean": "the mean predictions for {reference} reference examples",
        },
    )
)
