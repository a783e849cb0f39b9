"""Two-dimensional convolution built from matrix products, for CPUs.

On a CPU, XLA runs a convolution 10 to 60 times slower than necessary if the convolution is inside a loop, or if `vmap`
turns it into a grouped convolution; matrix products keep their speed in both cases. Here, a convolution is `fold ∘
product ∘ spread`. *Spread* collects the cells in a window and stacks them as channels. *Fold*, the transpose of
*spread*, adds each channel back to the cell from which *spread* takes this channel. For each kernel axis, the
convolution uses either *spread* or *fold*. Spreading along both axes is im2col. *Row-out* spreads only along the
columns of the kernel, computes the results of all kernel rows in one product, and folds these results along the rows.
*Row-out* moves less memory than im2col if there are many input channels.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def conv_general_dilated(
    lhs: jax.Array, rhs: jax.Array, window_strides: Sequence[int], padding: str | Sequence[tuple[int, int]], **kwargs
) -> jax.Array:
    """Convolve images `[B, H, W, C]` with a kernel `[kh, kw, C, O]`; return images `[B, H', W', O]`.

    This function replaces `lax.conv_general_dilated` in a Flax layer. Strides, kernel size and padding may have any
    value.

    Raises:
      NotImplementedError: dilation, feature groups or another layout is requested.
    """
    dilations = {*(kwargs.get("lhs_dilation") or ()), *(kwargs.get("rhs_dilation") or ())}
    groups = {kwargs.get("feature_group_count", 1), kwargs.get("batch_group_count", 1)}
    layout = lax.conv_dimension_numbers(lhs.shape, rhs.shape, kwargs.get("dimension_numbers") or _LAYOUT)
    if (
        lhs.ndim != 4
        or (dilations | groups) - {1}
        or layout != lax.conv_dimension_numbers(lhs.shape, rhs.shape, _LAYOUT)
    ):
        raise NotImplementedError("only plain two-dimensional convolutions are built from matrix products")
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], window_strides, padding)
    kh, kw, c, o = rhs.shape
    (top, bottom), (left, right) = padding
    down = _Window(1, kh, window_strides[0], int(top), int(bottom), lhs.shape[1])
    across = _Window(2, kw, window_strides[1], int(left), int(right), lhs.shape[2])
    if down.stride > 1 or kh * kw * c <= kw * c + kh * o:
        return _convolve(lhs, rhs.reshape(kh * kw * c, o), (across, down), ())
    # Each input row contributes to the output rows in a window of `kh` rows, with the rows of the kernel reversed.
    onto = _Window(1, kh, 1, kh - 1 - down.low, kh - 1 - down.high, down.places)
    return _convolve(lhs, rhs[::-1].transpose(1, 2, 0, 3).reshape(kw * c, kh * o), (across,), (onto,))


class _Window(NamedTuple):
    """Window of `size` cells that slides along an axis of `extent` cells, with `low` and `high` cells of padding."""

    axis: int
    size: int
    stride: int
    low: int
    high: int
    extent: int

    @property
    def places(self) -> int:
        """Number of positions of the window."""
        return (self.extent + self.low + self.high - self.size) // self.stride + 1

    @property
    def span(self) -> int:
        """Number of cells over which a single cell of the window slides, from its first to its last position."""
        return (self.places - 1) * self.stride + 1


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x: jax.Array, kernel: jax.Array, spread: tuple[_Window, ...], fold: tuple[_Window, ...]) -> jax.Array:
    return functools.reduce(_fold, fold, functools.reduce(_spread, spread, x) @ kernel)


def _forward(x, kernel, spread, fold):
    return _convolve(x, kernel, spread, fold), (x, kernel)


def _backward(spread, fold, residuals, g):
    x, kernel = residuals
    # Spread again: a saved copy would leave the cache before it is needed.
    x, g = functools.reduce(_spread, spread, x), functools.reduce(_spread, fold, g)
    # For JAX's own derivative of a product, XLA first transposes `g`; this step takes longer than the product itself.
    kernel_gradient = x.reshape(-1, x.shape[-1]).T @ g.reshape(-1, g.shape[-1])
    return functools.reduce(_fold, reversed(spread), g @ kernel.T), kernel_gradient


_convolve.defvjp(_forward, _backward)


def _spread(x: jax.Array, window: _Window) -> jax.Array:
    """For each position of the window, stack the cells in the window as channels: `[…, C] → […, size · C]`."""
    x = _pad(x, window.axis, window.low, window.high)
    parts = [lax.slice_in_dim(x, u, u + window.span, window.stride, window.axis) for u in range(window.size)]
    return jnp.concatenate(parts, axis=-1)


def _fold(x: jax.Array, window: _Window) -> jax.Array:
    """Apply the transpose of `_spread`."""
    starts = range(-window.low, window.size - window.low)
    parts = (
        _pad(part, window.axis, start, window.extent - start - window.span, window.stride - 1)
        for start, part in zip(starts, jnp.split(x, window.size, axis=-1), strict=True)
    )
    return functools.reduce(jnp.add, parts)


def _pad(x: jax.Array, axis: int, low: int, high: int, interior: int = 0) -> jax.Array:
    config = [(0, 0, 0)] * x.ndim
    config[axis] = (low, high, interior)
    return lax.pad(x, jnp.zeros((), x.dtype), config)
