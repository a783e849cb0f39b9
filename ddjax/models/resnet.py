"""Residual network."""

from functools import partial

import jax
from flax import nnx

from ddjax.models.dense import Dense
from ddjax.models.layers import GroupNorm, channels, conv, with_channels
from ddjax.models.registry import MODELS, Activation, ModelEntry
from ddjax.types import working_dtype


def _norm(features: int, rngs: nnx.Rngs) -> GroupNorm:
    return GroupNorm(features, num_groups=8, param_dtype=working_dtype(), rngs=rngs)


class _Block(nnx.Module):
    """Two 3×3 convolutions with GroupNorm, and a shortcut (He et al. 2016).

    If the output has another shape than the input, the shortcut is a 1×1 convolution.
    """

    def __init__(self, in_features: int, features: int, strides: int, activation: Activation, rngs: nnx.Rngs):
        self.first = conv(in_features, features, 3, rngs, strides, use_bias=False)
        self.first_norm = _norm(features, rngs)
        self.second = conv(features, features, 3, rngs, use_bias=False)
        self.second_norm = _norm(features, rngs)
        changes = strides != 1 or in_features != features
        self.shortcut = conv(in_features, features, 1, rngs, strides, use_bias=False) if changes else None
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.activation(self.first_norm(self.first(x)))
        y = self.second_norm(self.second(y))
        return self.activation(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(nnx.Module):
    """Residual network with GroupNorm: a 3×3 convolution, three stages of blocks, mean pooling and a dense layer.

    The stages have 16, 32 and 64 channels. With `blocks` blocks per stage, the depth is 2 + 6 · `blocks`; the paper on
    distributed distillation uses a depth of 14.
    """

    def __init__(self, blocks: int, input_shape: tuple[int, ...], outputs: int, activation: Activation, rngs: nnx.Rngs):
        self.stem = conv(channels(f"resnet{2 + 6 * blocks}", input_shape), 16, 3, rngs, use_bias=False)
        self.stem_norm = _norm(16, rngs)
        shapes = [
            shape
            for before, features, strides in ((16, 16, 1), (16, 32, 2), (32, 64, 2))
            for shape in [(before, features, strides), *[(features, features, 1)] * (blocks - 1)]
        ]
        self.blocks = nnx.List([_Block(*shape, activation, rngs) for shape in shapes])
        self.out = Dense(64, outputs, rngs=rngs)
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map images to outputs `[B, K]`."""
        x = self.activation(self.stem_norm(self.stem(with_channels(x))))
        for block in self.blocks:
            x = block(x)
        return self.out(x.mean((1, 2)))


for _name, _count in (("resnet8", 1), ("resnet14", 2), ("resnet20", 3)):
    MODELS.add(ModelEntry(_name, partial(ResNet, _count), check=partial(channels, _name), convolutional=True))
