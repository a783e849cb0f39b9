"""Linear model."""

import math

import jax
from flax import nnx

from ddjax.models.dense import Dense
from ddjax.models.layers import flatten
from ddjax.models.ngrams import on_ngrams
from ddjax.models.registry import MODELS, Activation, ModelEntry


class Linear(nnx.Module):
    """Linear map of the flattened input: logistic regression for classes, linear regression for numbers."""

    def __init__(self, input_shape: tuple[int, ...], outputs: int, activation: Activation, rngs: nnx.Rngs):
        self.dense = Dense(math.prod(input_shape), outputs, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map inputs `[B, …]` to outputs `[B, K]`."""
        return self.dense(flatten(x))


MODELS.add(ModelEntry("linear", Linear, on_tokens=on_ngrams(Linear)))
