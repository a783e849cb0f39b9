"""A two-dimensional convolution out of matrix products, for CPU.

XLA's CPU backend runs a convolution inside a loop, and the grouped convolution that `vmap` makes of one, 10 to 60 times
slower than it need be; products keep their speed in both. *Row-out* concatenates only
the horizontal shifts of the input, lets one product yield all kernel rows at once, and adds the vertically shifted
results; small tiles of images stay in cache.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

_TILE = 4  # images; measured, see BUILD_NOTES
_LAYOUT = ("NHWC", "HWIO", "NHWC")

Pads = tuple[tuple[int, int], tuple[int, int]]


def conv_general_dilated(
    lhs: jax.Array, rhs: jax.Array, window_strides: Sequence[int], padding: str | Sequence[tuple[int, int]], **kwargs
) -> jax.Array:
    """Drop-in for `lax.conv_general_dilated` in a Flax layer: `[B, H, W, C], [kh, kw, C, O] → [B, H', W', O]`.

    Takes any strides, kernel size and padding; dilation, feature groups and other layouts are not built (raises
    `NotImplementedError`).
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
    strides = (window_strides[0], window_strides[1])
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], strides, padding)
    (top, bottom), (left, right) = padding
    return _convolve(lhs, rhs, strides, ((int(top), int(bottom)), (int(left), int(right))))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x: jax.Array, kernel: jax.Array, strides: tuple[int, int], pads: Pads) -> jax.Array:
    out = lax.map(lambda tile: _tile_forward(tile, kernel, strides, pads), _tiles(x))
    return _untile(out, x.shape[0])


def _forward(x, kernel, strides, pads):
    return _convolve(x, kernel, strides, pads), (x, kernel)


def _backward(strides, pads, residuals, g):
    x, kernel = residuals

    def tile_backward(kernel_gradient, tile):
        if strides == (1, 1):
            dx, dk = _tile_gradients(tile[0], tile[1], kernel, pads)
        else:
            dx, dk = jax.vjp(lambda x, k: _tile_forward(x, k, strides, pads), tile[0], kernel)[1](tile[1])
        return kernel_gradient + dk, dx

    kernel_gradient, input_gradient = lax.scan(tile_backward, jnp.zeros_like(kernel), (_tiles(x), _tiles(g)))
    return _untile(input_gradient, x.shape[0]), kernel_gradient


_convolve.defvjp(_forward, _backward)


def _tiles(x: jax.Array) -> jax.Array:
    """`[B, …] → [⌈B / tile⌉, tile, …]`, filled up with zeros, which add nothing to a kernel gradient."""
    x = jnp.pad(x, [(0, -x.shape[0] % _TILE)] + [(0, 0)] * (x.ndim - 1))
    return x.reshape(-1, _TILE, *x.shape[1:])


def _untile(x: jax.Array, batch: int) -> jax.Array:
    return x.reshape(-1, *x.shape[2:])[:batch]


def _pad(x: jax.Array, pads: Pads) -> jax.Array:
    return jnp.pad(x, [(0, 0), *pads, (0, 0)])


def _columns(x: jax.Array, width: int, out_width: int) -> jax.Array:
    """The `width` horizontal shifts side by side, `[B, H, W, C] → [B, H, out_width, width · C]`."""
    return jnp.concatenate([x[:, :, v : v + out_width] for v in range(width)], axis=-1)


def _row_out(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Stride-1 convolution of an already padded tile."""
    kh, kw, c, o = kernel.shape
    h, w = x.shape[1] - kh + 1, x.shape[2] - kw + 1
    rows = _columns(x, kw, w) @ kernel.transpose(1, 2, 0, 3).reshape(kw * c, kh * o)
    return sum((rows[:, u : u + h, :, u * o : (u + 1) * o] for u in range(1, kh)), rows[:, :h, :, :o])


def _tile_forward(x: jax.Array, kernel: jax.Array, strides: tuple[int, int], pads: Pads) -> jax.Array:
    x = _pad(x, pads)
    if strides == (1, 1):
        return _row_out(x, kernel)
    kh, kw, c, o = kernel.shape
    (sh, sw), h, w = strides, (x.shape[1] - kh) // strides[0] + 1, (x.shape[2] - kw) // strides[1] + 1
    patches = [x[:, u : u + (h - 1) * sh + 1 : sh, v : v + (w - 1) * sw + 1 : sw] for u in range(kh) for v in range(kw)]
    return jnp.concatenate(patches, axis=-1) @ kernel.reshape(kh * kw * c, o)


def _tile_gradients(x: jax.Array, g: jax.Array, kernel: jax.Array, pads: Pads) -> tuple[jax.Array, jax.Array]:
    """Stride-1 gradients: for the input a convolution with flipped kernels, for the kernel one product."""
    kh, kw, c, o = kernel.shape
    (top, bottom), (left, right) = pads
    flipped = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    full = ((kh - 1 - top, kh - 1 - bottom), (kw - 1 - left, kw - 1 - right))
    input_gradient = _row_out(
        lax.pad(g, jnp.zeros((), g.dtype), [(0, 0, 0), *((*p, 0) for p in full), (0, 0, 0)]), flipped
    )
    columns = _columns(_pad(x, pads), kw, g.shape[2]).reshape(-1, kw * c)
    rows = jnp.concatenate([_pad(g, ((u, kh - 1 - u), (0, 0))) for u in range(kh)], axis=-1).reshape(-1, kh * o)
    return input_gradient, (columns.T @ rows).reshape(kw, c, kh, o).transpose(2, 0, 1, 3)
