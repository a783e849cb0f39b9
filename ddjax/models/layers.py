"""What several models share: the forms in which they take inputs, and small layers."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from ddjax.errors import InputError
from ddjax.models.registry import MODELS
from ddjax.types import working_dtype


def numbers(x: jax.Array) -> jax.Array:
    """Returns `x`, the inputs of a model that computes with them.

    Raises:
      InputError: they are token ids, which are names and not amounts.
    """
    if jnp.issubdtype(x.dtype, jnp.integer):
        takers = [entry.name for entry in MODELS.entries() if entry.tokens]
        raise InputError(
            f"this model computes with numbers, but the inputs are token ids ({x.dtype} {list(x.shape[1:])}); "
            f"models that take token ids: {', '.join(takers) or 'none is registered'}"
        )
    return x


def token_ids(x: jax.Array) -> jax.Array:
    """Returns `x`, the inputs `[B, L]` of a model that looks tokens up.

    Raises:
      InputError: they are numbers, or not sequences.
    """
    if not jnp.issubdtype(x.dtype, jnp.integer) or x.ndim != 2:
        raise InputError(
            "this model needs token ids, integers [examples, length], "
            f"but the inputs are {x.dtype} [examples, {', '.join(map(str, x.shape[1:]))}]"
        )
    return x


def flatten(x: jax.Array) -> jax.Array:
    """`[B, …] → [B, D]`; refuses token ids."""
    return numbers(x).reshape(x.shape[0], -1)


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
    """Images `[B, height, width, channels]`; those without channels get one. Refuses token ids."""
    return numbers(x)[..., None] if x.ndim == 3 else numbers(x)


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
