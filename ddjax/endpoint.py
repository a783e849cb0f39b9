"""What kind of point devices come to rest at: a minimum of their regularized loss, or a saddle."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse.linalg
from jax.flatten_util import ravel_pytree

from ddjax.types import PyTree

# Curvature below this part of the largest counts as none: of networks with more parameters than data most is.
_FLAT = 1e-3


class EndPoint(NamedTuple):
    """The neighbourhood of one device's parameters, at a target that is held fixed.

    Attributes:
      gradient_norm: `‖g‖`.
      smallest, largest: eigenvalues of the Hessian, by Lanczos.
      uncertainty: `‖H v − λ v‖` of the smallest: an eigenvalue lies within that of it.
      escaped: by how much gradient descent that starts a little way along `± v` ends below the loss at the point, as a
        part of it.
      verdict: `minimum`, `saddle` or `undecided`.
    """

    gradient_norm: float
    smallest: float
    largest: float
    uncertainty: float
    escaped: float
    verdict: str


def examine(
    loss: Callable[..., jax.Array], params: PyTree, *data: Any, perturbation: float = 0.05, descent: int = 500
) -> EndPoint:
    """Looks around a point.

    Where the gradient is so small that it cannot lower the loss by more than a thousandth, it is a *saddle* if a
    direction bends down by more than a thousandth of the largest curvature, beyond the uncertainty, and descent from
    there ends lower by more than a thousandth of the loss; a *minimum* if no direction bends down so; else *undecided*.

    Args:
      loss: `(params, *data) → []`, twice differentiable.
      params: the point.
      data: what it is a loss of.
      perturbation: length of the step along the direction of least curvature, as a part of `‖θ‖`.
      descent: gradient steps from there, each of `1 / largest`.
    """
    start, unravel = ravel_pytree(params)
    value_and_gradient = jax.jit(lambda flat, *data: jax.value_and_grad(lambda f: loss(unravel(f), *data))(flat))

    @jax.jit
    def along(flat: jax.Array, direction: jax.Array, *data: Any) -> jax.Array:
        # Reverse over reverse, since layers with a VJP of their own have no forward mode.
        gradient = jax.grad(lambda f: loss(unravel(f), *data))
        return jax.grad(lambda f: jnp.vdot(gradient(f), direction))(flat)

    @jax.jit
    def descend(flat: jax.Array, step: jax.Array, *data: Any) -> jax.Array:
        gradient = jax.grad(lambda f: loss(unravel(f), *data))
        return jax.lax.fori_loop(0, descent, lambda _, f: f - step * gradient(f), flat)

    size = start.size
    operator = scipy.sparse.linalg.LinearOperator(
        (size, size),
        matvec=lambda v: np.asarray(along(start, jnp.asarray(v.ravel(), start.dtype), *data)),
        dtype=start.dtype,
    )
    seed = np.random.default_rng(0).normal(size=size).astype(start.dtype)
    options: dict[str, Any] = {"k": 1, "v0": seed, "tol": 1e-4, "maxiter": 2000, "ncv": min(size, 60)}
    (largest,), _ = scipy.sparse.linalg.eigsh(operator, which="LA", **options)
    try:
        (smallest,), vectors = scipy.sparse.linalg.eigsh(operator, which="SA", **options)
        vector = vectors[:, 0]
    except scipy.sparse.linalg.ArpackNoConvergence as error:
        found = error.eigenvalues.size > 0
        smallest = error.eigenvalues[0] if found else np.nan
        vector = error.eigenvectors[:, 0] if found else seed / np.linalg.norm(seed)
    uncertainty = float(np.linalg.norm(operator @ vector - smallest * vector))
    here, gradient = value_and_gradient(start, *data)
    step, ahead = 1 / largest, perturbation * jnp.linalg.norm(start) * vector
    moved = [value_and_gradient(descend(start + side, step, *data), *data)[0] for side in (ahead, -ahead)]
    norm = float(jnp.linalg.norm(gradient))
    escaped = float((here - jnp.minimum(*moved)) / jnp.abs(here))
    flat = _FLAT * float(largest)
    verdict = "undecided"
    if norm**2 / flat < 1e-3 * abs(float(here)):
        if smallest + uncertainty < -flat and escaped > 1e-3:
            verdict = "saddle"
        elif smallest - uncertainty > -flat:
            verdict = "minimum"
    return EndPoint(norm, float(smallest), float(largest), uncertainty, escaped, verdict)
