"""The tasks classification and regression, and all that depends on the task; the dtype of `y` determines the task."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddjax.errors import InputError
from ddjax.learning import losses


class Task(NamedTuple):
    """Kind of supervised learning, with a model `f(x)` that has `K` outputs.

    Attributes:
      metric: name of the measure on the test set: `accuracy` or `mse`.
      best: `max` or `min`: which of the devices' metrics is the best.
      worst: the other of the two.
      partition: name of the default partition of examples over devices.
      loss: `(f [B, K], y [B, …]) → [B]`, the private loss.
      decision: `(f [B, K], T) → [B, K]`, the soft decisions `s` that devices send, at temperature `T`.
      compared: `(f, T) → (input of a divergence, s)`.
      divergence: `(specification) → losses.Divergence`; raises `InputError` for an unknown divergence.
      start: `(K) → float`, the entries of `z` and `s^prev` before anything has been sent.
      bounds: the smallest and the largest entry that a target may have; targets are clipped to these bounds.
      measure: `(s […, B, K], y [B, …]) → […, B]`, a measure for each example; the metric is the mean over examples.
      targets: `(y [M, …], K) → [M, K]`, the NumPy arrays with which a squared loss compares outputs.
    """

    metric: str
    best: str
    worst: str
    partition: str
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    decision: Callable[[jax.Array, Any], jax.Array]
    compared: Callable[[jax.Array, Any], tuple[jax.Array, jax.Array]]
    divergence: Callable[[str], losses.Divergence]
    start: Callable[[int], float]
    bounds: tuple[float, float]
    measure: Callable[[jax.Array, jax.Array], jax.Array]
    targets: Callable[[np.ndarray, int], np.ndarray]


def _log_softmax(f: jax.Array, temperature: Any) -> tuple[jax.Array, jax.Array]:
    log_s = jax.nn.log_softmax(f / temperature)
    return log_s, jnp.exp(log_s)


# `y [M]` are integers in `[0, K)`. Soft decisions are points of the simplex; `z` and `s^prev` are uniform at first.
CLASSIFICATION = Task(
    metric="accuracy",
    best="max",
    worst="min",
    partition="dirichlet",
    loss=losses.softmax_cross_entropy,
    decision=lambda f, temperature: jax.nn.softmax(f / temperature),
    compared=_log_softmax,
    divergence=lambda spec: losses.DIVERGENCES.parse(spec).build(),
    start=lambda classes: 1 / classes,
    bounds=(0, 1),
    measure=lambda s, y: s.argmax(-1) == y,
    targets=lambda y, classes: np.eye(classes)[y],
)


def _between_numbers(spec: str) -> losses.Divergence:
    if spec != "squared_euclidean":
        raise InputError(f"divergence {spec!r} is only for classification; regression uses squared_euclidean")
    return losses.squared_error


# `y [M, K]` are numbers, and the soft decision is the prediction itself. There is no temperature. Neither the private
# loss nor the divergence has a factor ½, so that distillation between linear models converges to the closed form of
# `co_regularization` with the same `ρ`.
REGRESSION = Task(
    metric="mse",
    best="min",
    worst="max",
    partition="iid",
    loss=losses.squared_error,
    decision=lambda f, temperature: f,
    compared=lambda f, temperature: (f, f),
    divergence=_between_numbers,
    start=lambda outputs: 0.0,
    bounds=(-np.inf, np.inf),
    measure=losses.squared_error,
    targets=lambda y, outputs: y,
)

TASKS = {task.metric: task for task in (CLASSIFICATION, REGRESSION)}


def infer_task(y: Any) -> Task:
    """Find the task from the targets `y`: integer labels `[M]`, or floating-point numbers `[M, K]` to predict.

    Raises:
      ValueError: floating-point targets do not have two axes.

    Examples:
      >>> infer_task(np.array([0, 2, 1])).metric
      'accuracy'
      >>> infer_task(np.array([[0.5], [1.5]])).metric
      'mse'
    """
    if jnp.issubdtype(y.dtype, jnp.integer):
        return CLASSIFICATION
    if y.ndim != 2:
        raise ValueError(f"numbers to predict must have the shape [examples, outputs], got {list(y.shape)}")
    return REGRESSION
