"""Layers that several models share."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from ddjax.errors import InputError
from ddjax.types import working_dtype


def conv(in_features: int, out_features: int, size: int, rngs: nnx.Rngs, strides: int = 1, use_bias: bool = True):
    """A convolution with square kernels in the working precision."""
    return nnx.Conv(
        in_features, out_features, (size, size), strides, use_bias=use_bias, param_dtype=working_dtype(), rngs=rngs
    )


def average_pool(x: jax.Array) -> jax.Array:
    """Averages over 2×2 pixels, smooth as the theory asks; an odd last row or column is dropped."""
    b, h, w, c = x.shape
    return x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def with_channels(x: jax.Array) -> jax.Array:
    """Images `[B, height, width, channels]`; those without channels get one."""
    return x[..., None] if x.ndim == 3 else x


def channels(model: str, input_shape: tuple[int, ...]) -> int:
    """The number of channels of an image; raises `InputError` for inputs that are none."""
    if len(input_shape) not in (2, 3) or min(input_shape[:2]) < 4:
        raise InputError(
            f"model {model!r} needs images of at least 4×4, [height, width] or [height, width, channels]; "
            f"an example here has shape {list(input_shape)}"
        )
    return input_shape[2] if len(input_shape) == 3 else 1


class GroupNorm(nnx.GroupNorm):
    """Flax's GroupNorm with sums over the whole image first: these vectorize, those over a group's channels do not."""

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
