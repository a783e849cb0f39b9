"""Stacked pytrees: every leaf begins with the device axis, `[N, …]`."""

import math

import jax
import jax.numpy as jnp

from ddjax.types import PyTree


def expand(scalars: jax.Array, x: jax.Array) -> jax.Array:
    """Reshape scalars, one for each index of the leading axes of `x`, so that they can be multiplied by `x`."""
    return scalars.reshape(scalars.shape + (1,) * (x.ndim - scalars.ndim))


def select(chosen: jax.Array, a: PyTree, b: PyTree) -> PyTree:
    """Take devices from the stacked pytree `a` where `chosen` `[N]` is true, and from `b` elsewhere."""
    return jax.tree.map(lambda x, y: jnp.where(expand(chosen, x), x, y), a, b)


def flatten(x: PyTree) -> jax.Array:
    """Concatenate all leaves into an array `[N, P]`."""
    return jnp.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(x)], axis=1)


def unflatten(flat: jax.Array, x: PyTree) -> PyTree:
    """Split `[N, P]` into a stacked pytree like `x`."""
    leaves, structure = jax.tree.flatten(x)
    sizes = [math.prod(leaf.shape[1:]) for leaf in leaves]
    stops = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
    parts = jnp.split(flat, stops, axis=1)
    return jax.tree.unflatten(structure, [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)])


def shapes(tree: PyTree) -> PyTree:
    """Return the shape and dtype of each leaf."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def stacked_bytes(x: PyTree) -> int:
    """Count the uncompressed bytes per device of a stacked pytree (leaves `[N, …]`, arrays or their shapes)."""
    return sum(math.prod(leaf.shape[1:]) * jnp.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(x))
