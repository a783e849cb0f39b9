"""What is learned, classes or numbers, and all that follows from it. The dtype of `y` tells which."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddjax.errors import InputError
from ddjax.learning import losses


class Task(NamedTuple):
    """A kind of supervised learning with a model of `K` outputs, `f(x)`.

    Attributes:
      metric: the name of what is measured on the test set: `accuracy` or `mse`.
      best: `max` or `min`, which of the devices' metrics is the best.
      worst: the other one.
      partition: how examples are shared out where nothing is said.
      loss: `(f [B, K], y [B, …]) → [B]`, the private loss.
      decision: `(f [B, K], T) → [B, K]`, the soft decisions `s` at temperature `T`: what devices send.
      compared: `(f, T) → (what a divergence takes, s)`.
      divergence: `(specification) → losses.Divergence`; raises `InputError` for one that it has not.
      start: `(K) → float`, the entries of `z` and `s^prev` before anything was sent.
      bounds: the least and the largest entry of a target; targets are clipped to them.
      measure: `(s […, B, K], y [B, …]) → […, B]` for each example; the metric is its mean.
      targets: `(y [M, …], K) → [M, K]`, what a squared loss compares outputs with (of NumPy arrays).
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


# `y [M]` are integers in `[0, K)`, soft decisions points of the simplex, uniform at first: no opinion.
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
        raise InputError(f"divergence {spec!r} is only for classes; between predicted numbers it is squared_euclidean")
    return losses.squared_error


# `y [M, K]` are numbers, and the soft decision is the prediction itself. There is no temperature. Neither squared error
# has a factor ½, so that distillation between linear models ends at the closed form of `co_regularization`, at its `ρ`.
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
    """The task whose targets are `y`: labels `[M]` of integers, or `[M, K]` floating-point numbers to predict."""
    if jnp.issubdtype(y.dtype, jnp.integer):
        return CLASSIFICATION
    if y.ndim != 2:
        raise ValueError(f"numbers to predict have the shape [examples, outputs], got {list(y.shape)}")
    return REGRESSION
