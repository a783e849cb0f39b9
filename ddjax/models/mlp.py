"""Multilayer perceptrons."""

import math

import jax
from flax import nnx

from ddjax.models.dense import Dense
from ddjax.models.layers import flatten
from ddjax.models.ngrams import on_ngrams
from ddjax.models.registry import MODELS, Activation, ModelEntry


class MLP(nnx.Module):
    """Multilayer perceptron with one hidden layer of 128 units, applied to the flattened input."""

    def __init__(self, input_shape: tuple[int, ...], outputs: int, activation: Activation, rngs: nnx.Rngs):
        self.hidden = Dense(math.prod(input_shape), 128, rngs=rngs)
        self.out = Dense(128, outputs, rngs=rngs)
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map inputs `[B, …]` to outputs `[B, K]`."""
        return self.out(self.activation(self.hidden(flatten(x))))


class DeepMLP(nnx.Module):
    """Multilayer perceptron with two hidden layers of 512 units, applied to the flattened input."""

    def __init__(self, input_shape: tuple[int, ...], outputs: int, activation: Activation, rngs: nnx.Rngs):
        self.first = Dense(math.prod(input_shape), 512, rngs=rngs)
        self.second, self.out = Dense(512, 512, rngs=rngs), Dense(512, outputs, rngs=rngs)
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map inputs `[B, …]` to outputs `[B, K]`."""
        return self.out(self.activation(self.second(self.activation(self.first(flatten(x))))))


MODELS.add(ModelEntry("mlp", MLP, on_tokens=on_ngrams(MLP)))
MODELS.add(ModelEntry("mlp_512_512", DeepMLP))
