"""Parts that several models share: checks and shapes of inputs, and small layers."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from ddjax.errors import InputError
from ddjax.models.registry import MODELS
from ddjax.types import working_dtype


def numbers(x: jax.Array) -> jax.Array:
    """Check that the inputs `x` are numbers, as some models require, and return `x`.

    Raises:
      InputError: the inputs are token ids, which are names, not quantities.

    Examples:
      >>> import jax
      >>> from ddjax.models import numbers
      >>> numbers(jax.numpy.zeros((5, 8, 8))).shape
      (5, 8, 8)
      >>> numbers(jax.numpy.zeros((5, 12), int))
      Traceback (most recent call last):
      ddjax.errors.InputError: this model needs numeric inputs, but these inputs are token ids ...
    """
    if jnp.issubdtype(x.dtype, jnp.integer):
        takers = [entry.name for entry in MODELS.entries() if entry.tokens]
        raise InputError(
            f"this model needs numeric inputs, but these inputs are token ids ({x.dtype} {list(x.shape[1:])}); "
            f"models that take token ids: {', '.join(takers) or 'none is registered'}"
        )
    return x


def token_ids(x: jax.Array) -> jax.Array:
    """Check that the inputs `x` are token ids `[B, L]`, as some models require, and return `x`.

    Raises:
      InputError: the inputs are floating-point numbers, or they are not sequences.

    Examples:
      >>> import jax
      >>> from ddjax.models import token_ids
      >>> token_ids(jax.numpy.zeros((5, 12), int)).shape
      (5, 12)
    """
    if not jnp.issubdtype(x.dtype, jnp.integer) or x.ndim != 2:
        raise InputError(
            "this model needs token ids (integers [examples, length]), "
            f"but the inputs are {x.dtype} [examples, {', '.join(map(str, x.shape[1:]))}]"
        )
    return x


def flatten(x: jax.Array) -> jax.Array:
    """Flatten inputs, `[B, …] → [B, D]`; raise `InputError` for token ids."""
    return numbers(x).reshape(x.shape[0], -1)


def conv(in_features: int, out_features: int, size: int, rngs: nnx.Rngs, strides: int = 1, use_bias: bool = True):
    """Make a convolution with square kernels, whose parameters have the working precision."""
    return nnx.Conv(
        in_features, out_features, (size, size), strides, use_bias=use_bias, param_dtype=working_dtype(), rngs=rngs
    )


def average_pool(x: jax.Array) -> jax.Array:
    """Average over blocks of 2×2 pixels, and drop a last row or column that fills no block.

    Averages, unlike maxima, are smooth functions, as the theory requires.
    """
    b, h, w, c = x.shape
    return x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def with_channels(x: jax.Array) -> jax.Array:
    """Return images `[B, height, width, channels]`; add an axis of one channel if needed; refuse token ids."""
    return numbers(x)[..., None] if x.ndim == 3 else numbers(x)


def channels(model: str, input_shape: tuple[int, ...]) -> int:
    """Return the number of channels of an image; raise `InputError` if an input is not an image."""
    if len(input_shape) not in (2, 3) or min(input_shape[:2]) < 4:
        raise InputError(
            f"model {model!r} needs images of at least 4×4, [height, width] or [height, width, channels]; "
            f"an example here has shape {list(input_shape)}"
        )
    return input_shape[2] if len(input_shape) == 3 else 1


class GroupNorm(nnx.GroupNorm):
    """Flax's GroupNorm, changed to sum over the whole image before it sums over the channels of a group.

    Sums over the image vectorize; sums over the channels of a group do not.
    """

    scale: nnx.Param
    bias: nnx.Param

    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]
        """Normalize images `[B, H, W, C]`."""
        b, h, w, _ = x.shape

        def mean(x: jax.Array) -> jax.Array:
            channels = x.sum((1, 2)) / (h * w)
            return jnp.repeat(channels.reshape(b, self.num_groups, -1).mean(-1), self.group_size, 1)[:, None, None]

        center = mean(x)
        variance = jnp.maximum(mean(x * x) - center * center, 0.0)
        scale = lax.rsqrt(variance + self.epsilon) * self.scale[...]
        return x * scale + (self.bias[...] - center * scale)
