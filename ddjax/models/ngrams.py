"""Counts of hashed n-grams, which let models that compute with numbers take token ids."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from ddjax.models.layers import token_ids
from ddjax.models.registry import Activation
from ddjax.types import working_dtype

BUCKETS = 4096


def hashed_ngrams(x: jax.Array) -> jax.Array:
    """Count the hashed tokens and hashed pairs of adjacent tokens in each example (Weinberger et al., ICML 2009).

    Args:
      x: token ids `[B, L]`; the id 0 means that there is no token.

    Returns:
      Counts `[B, 4096]`; the counts of each example are divided by the square root of their sum.
    """
    ids = token_ids(x).astype(jnp.uint32)
    # Odd multipliers mix the lower bits into the upper bits, which form the hash.
    pairs = (ids[:, :-1] * jnp.uint32(2654435761) + ids[:, 1:]) * jnp.uint32(2246822519) >> 20
    places = jnp.concatenate([ids % BUCKETS, pairs % BUCKETS], 1)
    there = jnp.concatenate([ids > 0, (ids[:, :-1] > 0) & (ids[:, 1:] > 0)], 1).astype(working_dtype())
    counts = jnp.zeros((len(x), BUCKETS), working_dtype()).at[jnp.arange(len(x))[:, None], places].add(there)
    return counts / jnp.sqrt(jnp.maximum(there.sum(1, keepdims=True), 1))


class OnNgrams(nnx.Module):
    """Model that computes with numbers `[B, 4096]`, applied to counts of hashed n-grams."""

    def __init__(self, model: Callable, outputs: int, activation: Activation, rngs: nnx.Rngs):
        self.model = model((BUCKETS,), outputs, activation, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map token ids `[B, L]` to outputs `[B, K]`."""
        return self.model(hashed_ngrams(x))


def on_ngrams(model: Callable) -> Callable:
    """Turn the constructor of a model that computes with numbers into the constructor of a model of token ids."""
    return lambda input_shape, outputs, activation, rngs: OnNgrams(model, outputs, activation, rngs)
