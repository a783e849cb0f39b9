"""Kind of point at which a device comes to rest: a minimum of its loss, or a saddle."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse.linalg
from jax.flatten_util import ravel_pytree

from ddjax.types import PyTree

# Curvatures below this fraction of the largest curvature are treated as zero. So are changes of the loss below this
# fraction of the loss.
_FLAT = _LITTLE = 1e-3


class EndPoint(NamedTuple):
    """Loss at a point and in its neighbourhood.

    Attributes:
      loss: loss at the point.
      gradient_norm: norm `‖g‖` of the gradient.
      smallest: smallest eigenvalue of the Hessian, by Lanczos.
      largest: largest eigenvalue of the Hessian, by Lanczos.
      uncertainty: `‖H v − λ v‖` for the computed smallest eigenvalue `λ` and its eigenvector `v`. Some eigenvalue of
        `H` lies within this distance of `λ`. Infinite if Lanczos did not converge, because Lanczos may then have missed
        a smaller eigenvalue.
      escape: largest decrease of the loss along `± v`; 0 if the loss decreases nowhere along `± v`.
      verdict: `minimum`, `saddle` or `undecided`.
    """

    loss: float
    gradient_norm: float
    smallest: float
    largest: float
    uncertainty: float
    escape: float
    verdict: str


def examine(loss: Callable[..., jax.Array], params: PyTree, *data: Any) -> EndPoint:
    """Examine whether a point is stationary to second order (Nesterov and Polyak 2006), and whether it can be escaped.

    Let `κ` be a thousandth of the largest curvature. If the curvature along the gradient `g` were `κ`, the best step
    along `g` would lower the loss by `‖g‖² / 2κ`. A point is *undecided* if this is a thousandth of the loss or more.
    Otherwise, the point is a *saddle* if two conditions hold: the smallest curvature lies below `−κ` by more than the
    uncertainty; and one of 50 trial steps along the direction of smallest curvature lowers the loss by more than a
    thousandth. The lengths of these steps go from `(1 + ‖θ‖) / 10,000` to `1 + ‖θ‖`. The point is a *minimum*, up to
    these scales, if the smallest curvature lies above `−κ` by more than the uncertainty, and no trial step lowers the
    loss that much. In all other cases, the point is undecided.

    Args:
      loss: `(params, *data) → []`, twice differentiable in reverse mode; compiled once per function and shape.
      params: point to examine.
      *data: further arguments of `loss`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from ddjax.theory.endpoint import examine
      >>> def loss(x):
      ...     return 1 + x[0] ** 2 - x[1] ** 2 + x[1] ** 4
      >>> examine(loss, jnp.zeros(2)).verdict
      'saddle'
      >>> examine(loss, jnp.array([0, 0.5**0.5])).verdict
      'minimum'
    """
    start, _ = ravel_pytree(params)
    here, gradient = jax.tree.map(np.asarray, _value_and_gradient(loss, params, *data))
    norm = float(np.linalg.norm(gradient))
    if not np.isfinite(norm):
        return EndPoint(float(here), norm, np.nan, np.nan, np.inf, np.nan, "undecided")

    def largest(operator: Callable[[np.ndarray], np.ndarray]) -> tuple[float, np.ndarray, bool]:
        wrapped = scipy.sparse.linalg.LinearOperator((start.size,) * 2, matvec=operator, dtype=np.float64)
        seed = np.random.default_rng(0).normal(size=start.size)
        try:
            values, vectors = scipy.sparse.linalg.eigsh(
                wrapped, 1, which="LA", v0=seed, ncv=min(start.size, 60), tol=1e-5, maxiter=200
            )
        except scipy.sparse.linalg.ArpackError:  # not converged, or a Hessian of zeros
            vector = seed / np.linalg.norm(seed)
            return float(vector @ operator(vector)), vector, False
        return float(values[0]), vectors[:, 0], True

    def product(direction: np.ndarray) -> np.ndarray:
        along = jnp.asarray(np.ravel(direction), start.dtype)
        return np.asarray(_product(loss, params, along, *data), np.float64)

    top, _, found = largest(product)
    # In the reversed spectrum, Lanczos finds the smallest eigenvalue as quickly, with an error relative to `top`.
    turned, vector, found_too = largest(lambda direction: top * np.ravel(direction) - product(direction))
    smallest = top - turned
    uncertainty = float(np.linalg.norm(product(vector) - smallest * vector)) if found and found_too else np.inf
    lengths = np.geomspace(1e-4, 1, 25) * (1 + np.linalg.norm(start))
    along = _along(
        loss, params, jnp.asarray(vector, start.dtype), jnp.asarray([*lengths, *-lengths], start.dtype), *data
    )
    flat, tolerance = _FLAT * top, _LITTLE * abs(float(here))
    escape = max(float(here - jnp.nanmin(along)), 0.0)
    verdict = "undecided"
    if flat > 0 and norm**2 / (2 * flat) < tolerance:
        if smallest + uncertainty < -flat and escape > tolerance:
            verdict = "saddle"
        elif smallest - uncertainty > -flat and escape <= tolerance:
            verdict = "minimum"
    return EndPoint(float(here), norm, smallest, top, uncertainty, escape, verdict)


@partial(jax.jit, static_argnums=0)
def _value_and_gradient(loss: Callable, params: PyTree, *data: Any) -> tuple[jax.Array, jax.Array]:
    value, gradient = jax.value_and_grad(loss)(params, *data)
    return value, ravel_pytree(gradient)[0]


@partial(jax.jit, static_argnums=0)
def _product(loss: Callable, params: PyTree, direction: jax.Array, *data: Any) -> jax.Array:
    """Compute `H v` by reverse mode twice, because layers with their own VJP have no forward mode."""
    start, unravel = ravel_pytree(params)

    def along(flat: jax.Array) -> jax.Array:
        return jnp.vdot(jax.grad(lambda f: loss(unravel(f), *data))(flat), direction)

    return jax.grad(along)(start)


@partial(jax.jit, static_argnums=0)
def _along(loss: Callable, params: PyTree, direction: jax.Array, lengths: jax.Array, *data: Any) -> jax.Array:
    """Compute the loss at `params + length · direction`, one length after another to save memory."""
    start, unravel = ravel_pytree(params)
    return jax.lax.map(lambda length: loss(unravel(start + length * direction), *data), lengths)
