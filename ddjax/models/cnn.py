"""Convolutional network."""

import jax
from flax import nnx

from ddjax.models.dense import Dense
from ddjax.models.layers import average_pool, channels, conv, with_channels
from ddjax.models.registry import MODELS, Activation, ModelEntry


class CNN(nnx.Module):
    """Two 5×5 convolutions (16 and 32 channels), each followed by average pooling, and a dense layer of 64 units."""

    def __init__(self, input_shape: tuple[int, ...], outputs: int, activation: Activation, rngs: nnx.Rngs):
        self.first = conv(channels("cnn", input_shape), 16, 5, rngs)
        self.second = conv(16, 32, 5, rngs)
        self.hidden = Dense((input_shape[0] // 4) * (input_shape[1] // 4) * 32, 64, rngs=rngs)
        self.out = Dense(64, outputs, rngs=rngs)
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map images to outputs `[B, K]`."""
        x = average_pool(self.activation(self.first(with_channels(x))))
        x = average_pool(self.activation(self.second(x)))
        return self.out(self.activation(self.hidden(x.reshape(x.shape[0], -1))))


MODELS.add(ModelEntry("cnn", CNN, check=lambda shape: channels("cnn", shape), convolutional=True))
