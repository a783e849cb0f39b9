"""Model architectures, as Flax NNX modules `[B, …] → [B, K]`, logits or predicted numbers.

To add one: a module and a line in `MODELS`.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from ddjax.errors import InputError, suggest
from ddjax.models import convolution
from ddjax.models.dense import Dense
from ddjax.types import working_dtype

Activation = Callable[[jax.Array], jax.Array]

ACTIVATIONS: dict[str, Activation] = {
    f.__name__: f for f in (nnx.elu, nnx.gelu, nnx.relu, nnx.sigmoid, nnx.silu, nnx.softplus, nnx.tanh)
}


def _conv(in_features: int, out_features: int, size: int, rngs: nnx.Rngs, strides: int = 1, use_bias: bool = True):
    return nnx.Conv(
        in_features, out_features, (size, size), strides, use_bias=use_bias, param_dtype=working_dtype(), rngs=rngs
    )


def _average_pool(x: jax.Array) -> jax.Array:
    """2×2, smooth as the theory asks; an odd last row or column is dropped."""
    b, h, w, c = x.shape
    return x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def _image(x: jax.Array) -> jax.Array:
    return x[..., None] if x.ndim == 3 else x


def _channels(model: str, input_shape: tuple[int, ...]) -> int:
    if len(input_shape) not in (2, 3) or min(input_shape[:2]) < 4:
        raise InputError(
            f"model {model!r} needs images of at least 4×4, [height, width] or [height, width, channels]; "
            f"an example here has shape {list(input_shape)}"
        )
    return input_shape[2] if len(input_shape) == 3 else 1


class Linear(nnx.Module):
    """Linear in the flattened input: logistic regression over classes, linear regression of numbers."""

    def __init__(self, input_shape: tuple[int, ...], outputs: int, activation: Activation, rngs: nnx.Rngs):
        self.dense = Dense(math.prod(input_shape), outputs, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.dense(x.reshape(x.shape[0], -1))


class MLP(nnx.Module):
    """One hidden layer of 128 on the flattened input."""

    def __init__(self, input_shape: tuple[int, ...], outputs: int, activation: Activation, rngs: nnx.Rngs):
        self.hidden = Dense(math.prod(input_shape), 128, rngs=rngs)
        self.out = Dense(128, outputs, rngs=rngs)
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.out(self.activation(self.hidden(x.reshape(x.shape[0], -1))))


class CNN(nnx.Module):
    """Convolution 5×5×16, average pool, 5×5×32, average pool, dense 64."""

    def __init__(self, input_shape: tuple[int, ...], outputs: int, activation: Activation, rngs: nnx.Rngs):
        self.first = _conv(_channels("cnn", input_shape), 16, 5, rngs)
        self.second = _conv(16, 32, 5, rngs)
        self.hidden = Dense((input_shape[0] // 4) * (input_shape[1] // 4) * 32, 64, rngs=rngs)
        self.out = Dense(64, outputs, rngs=rngs)
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        x = _average_pool(self.activation(self.first(_image(x))))
        x = _average_pool(self.activation(self.second(x)))
        return self.out(self.activation(self.hidden(x.reshape(x.shape[0], -1))))


class _GroupNorm(nnx.GroupNorm):
    """The same, with sums over the whole image first: these vectorize, those over two channels of a group do not."""

    scale: nnx.Param
    bias: nnx.Param

    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]
        b, h, w, _ = x.shape

        def mean(x: jax.Array) -> jax.Array:
            channels = x.sum((1, 2)) / (h * w)
            return jnp.repeat(channels.reshape(b, self.num_groups, -1).mean(-1), self.group_size, 1)[:, None, None]

        center = mean(x)
        variance = jnp.maximum(mean(x * x) - center * center, 0.0)
        scale = lax.rsqrt(variance + self.epsilon) * self.scale[...]
        return x * scale + (self.bias[...] - center * scale)


def _norm(features: int, rngs: nnx.Rngs) -> _GroupNorm:
    return _GroupNorm(features, num_groups=8, param_dtype=working_dtype(), rngs=rngs)


class _Block(nnx.Module):
    """Two 3×3 convolutions with GroupNorm around a shortcut, projected where the shape changes (He et al. 2016)."""

    def __init__(self, in_features: int, features: int, strides: int, activation: Activation, rngs: nnx.Rngs):
        self.first = _conv(in_features, features, 3, rngs, strides, use_bias=False)
        self.first_norm = _norm(features, rngs)
        self.second = _conv(features, features, 3, rngs, use_bias=False)
        self.second_norm = _norm(features, rngs)
        changes = strides != 1 or in_features != features
        self.shortcut = _conv(in_features, features, 1, rngs, strides, use_bias=False) if changes else None
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.activation(self.first_norm(self.first(x)))
        y = self.second_norm(self.second(y))
        return self.activation(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet14(nnx.Module):
    """The paper's depth: a 3×3 stem, three stages of two blocks with 16, 32 and 64 channels, GroupNorm, mean pool."""

    def __init__(self, input_shape: tuple[int, ...], outputs: int, activation: Activation, rngs: nnx.Rngs):
        self.stem = _conv(_channels("resnet14", input_shape), 16, 3, rngs, use_bias=False)
        self.stem_norm = _norm(16, rngs)
        shapes = ((16, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1))
        self.blocks = nnx.List([_Block(*shape, activation, rngs) for shape in shapes])
        self.out = Dense(64, outputs, rngs=rngs)
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.activation(self.stem_norm(self.stem(_image(x))))
        for block in self.blocks:
            x = block(x)
        return self.out(x.mean((1, 2)))


MODELS: dict[str, Callable[..., nnx.Module]] = {"linear": Linear, "mlp": MLP, "cnn": CNN, "resnet14": ResNet14}

CONVOLUTIONAL = ("cnn", "resnet14")
CONVOLUTIONS: dict[str, Callable] = {
    "products": convolution.conv_general_dilated,
    "native": lax.conv_general_dilated,
}


def model(
    name: str, input_shape: tuple[int, ...], outputs: int, activation: str = "gelu", convolution: str = ""
) -> Callable[[nnx.Rngs], nnx.Module]:
    """A constructor of the named architecture.

    Args:
      name: a key of `MODELS`.
      input_shape: of one example, without a batch axis.
      outputs: `K`, classes or numbers to predict.
      activation: a key of `ACTIVATIONS`; GELU by default, as the convergence proof wants smooth models.
      convolution: a key of `CONVOLUTIONS`; by default what is quicker on this backend for stacked kernels.

    Raises:
      InputError: an unknown name, or an input shape the model cannot take.
    """
    if name not in MODELS:
        raise suggest("model", name, MODELS)
    if activation not in ACTIVATIONS:
        raise suggest("activation", activation, ACTIVATIONS)
    convolution = convolution or ("products" if jax.default_backend() == "cpu" else "native")
    if convolution not in CONVOLUTIONS:
        raise suggest("convolution", convolution, CONVOLUTIONS)
    if name in CONVOLUTIONAL:
        _channels(name, input_shape)

    def build(rngs: nnx.Rngs) -> nnx.Module:
        module = MODELS[name](input_shape, outputs, ACTIVATIONS[activation], rngs)
        for _, layer in nnx.iter_modules(module):
            if isinstance(layer, nnx.Conv):
                layer.conv_general_dilated = CONVOLUTIONS[convolution]
        return module

    return build


def micro_batch_for(name: str) -> int:
    """How many examples of a model to take at a time on this backend, a learner's `micro_batch`; measured."""
    return 8 if name in CONVOLUTIONAL and jax.default_backend() == "cpu" else 0


def parse_models(spec: str, devices: int) -> list[tuple[str, int]]:
    """`linear:8+mlp:4` → `[("linear", 8), ("mlp", 4)]`; a single name without a count takes all devices.

    Raises:
      InputError: an unknown model, a bad count, or counts that do not add up to `devices`.
    """
    groups = []
    for part in spec.split("+"):
        name, _, count = part.partition(":")
        if name not in MODELS:
            raise suggest("model", name, MODELS)
        if (count or "+" in spec) and (not count.isdecimal() or int(count) < 1):
            raise InputError(f"models {spec!r}: {part!r} needs a count of devices, as in 'linear:8+mlp:4'")
        groups.append((name, int(count or devices)))
    total = sum(count for _, count in groups)
    if total != devices:
        raise InputError(f"models {spec!r} are {total} devices, but there are {devices}")
    return groups
