"""Stacked pytrees: the leaves of every one begin with the device axis, `[N, …]`."""

import math

import jax
import jax.numpy as jnp

from ddjax.types import PyTree


def expand(scalars: jax.Array, x: jax.Array) -> jax.Array:
    """Reshapes scalars, one for each index of the leading axes of `x`, so that they multiply it."""
    return scalars.reshape(scalars.shape + (1,) * (x.ndim - scalars.ndim))


def select(chosen: jax.Array, a: PyTree, b: PyTree) -> PyTree:
    """Takes devices from the stacked pytree `a` where `chosen` `[N]` is true, and from `b` elsewhere."""
    return jax.tree.map(lambda x, y: jnp.where(expand(chosen, x), x, y), a, b)


def flatten(x: PyTree) -> jax.Array:
    """All leaves side by side, `[N, P]`."""
    return jnp.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(x)], axis=1)


def unflatten(flat: jax.Array, x: PyTree) -> PyTree:
    """`[N, P]` as the stacked pytree that `x` is."""
    leaves, structure = jax.tree.flatten(x)
    sizes = [math.prod(leaf.shape[1:]) for leaf in leaves]
    stops = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
    parts = jnp.split(flat, stops, axis=1)
    return jax.tree.unflatten(structure, [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)])


def shapes(tree: PyTree) -> PyTree:
    """The shape and dtype of each leaf."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def stacked_bytes(x: PyTree) -> int:
    """Bytes of one device's part of a stacked pytree (leaves `[N, …]`, arrays or their shapes), uncompressed."""
    return sum(math.prod(leaf.shape[1:]) * jnp.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(x))
