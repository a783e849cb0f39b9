"""Mixers: how what the devices hold is combined over the network. To add one: a factory that returns a `Mixer`."""

import math

import jax
import jax.numpy as jnp

from ddjax.types import Mixer, PyTree


def weighted_average() -> Mixer:
    """Every device sends `x` to its out-neighbours and takes `x_n ← Σ_m W[n, m] x_m`, as one matrix product."""

    def mix(key: jax.Array, x: PyTree, state: PyTree, mixing_matrix: jax.Array):
        def average(leaf: jax.Array) -> jax.Array:
            # A product in reduced precision would not preserve the mean.
            flat = leaf.reshape(leaf.shape[0], -1)
            return jnp.matmul(mixing_matrix, flat, precision=jax.lax.Precision.HIGHEST).reshape(leaf.shape)

        links = (mixing_matrix != 0) & ~jnp.eye(mixing_matrix.shape[0], dtype=bool)
        return jax.tree.map(average, x), state, links.sum(0, dtype=jnp.int32)

    return Mixer(init=lambda x: (), mix=mix, message_bytes=stacked_bytes)


def stacked_bytes(x: PyTree) -> int:
    """Bytes of one device's part of a stacked pytree (leaves `[N, …]`, arrays or their shapes), uncompressed."""
    return sum(math.prod(leaf.shape[1:]) * jnp.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(x))
