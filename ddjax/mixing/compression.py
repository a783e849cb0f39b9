"""Compression of messages: what the receiver decodes, and the size of a message in bytes.

`δ` is the contraction factor that CHOCO-SGD requires, `E‖compress(x) − x‖² ≤ (1 − δ) ‖x‖²` (Koloskova, Stich, Jaggi,
ICML 2019, assumption 1). The docstring of a compressor states `δ` if it is known for every `x`. To add a compressor,
write a function that returns a `Compressor`, and add an entry to `COMPRESSORS`.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax import sharding
from ddjax.errors import InputError
from ddjax.registry import Argument, Entry, Registry, whole
from ddjax.types import working_dtype

COMPRESSORS: Registry[Entry] = Registry("compressor")


class Compressor(NamedTuple):
    """Compression of ONE device's message.

    Attributes:
      compress: `(key, x) → x`, the message as the receiver decodes it. The shape does not change: `[b, K]` for soft
        decisions, `[P]` for flattened parameters.
      message_bytes: `(shape) → int`, size of the message in bytes. The function raises `InputError` if a message of
        this shape cannot be compressed.
    """

    compress: Callable[[jax.Array, jax.Array], jax.Array]
    message_bytes: Callable[[tuple[int, ...]], int]


def number_bytes() -> int:
    """Return the size in bytes of an uncompressed number."""
    return working_dtype().itemsize


def identity() -> Compressor:
    """Leave the message unchanged."""
    return Compressor(lambda key, x: x, lambda shape: number_bytes() * math.prod(shape))


def float16() -> Compressor:
    """Clip each entry to the range ±65,504, and round it to IEEE half precision."""

    def compress(key: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.clip(x, -65504, 65504).astype(jnp.float16).astype(x.dtype)

    return Compressor(compress, lambda shape: 2 * math.prod(shape))


def uint8() -> Compressor:
    """Round each entry to the nearest of 256 evenly spaced levels between the message's minimum and maximum.

    The message also contains the minimum and the maximum.
    """

    def compress(key: jax.Array, x: jax.Array) -> jax.Array:
        low, high = x.min(), x.max()
        step = jnp.where(high > low, (high - low) / 255, 1)
        return low + jnp.round((x - low) / step) * step

    return Compressor(compress, lambda shape: math.prod(shape) + 2 * number_bytes())


def top_classes(k: int) -> Compressor:
    """Keep the `k` most probable classes of each soft decision; the other classes share the remaining mass equally."""

    def compress(key: jax.Array, x: jax.Array) -> jax.Array:
        _, classes = jax.lax.top_k(x, k)
        kept = jax.nn.one_hot(classes, x.shape[-1], dtype=bool).any(-2)
        rest = jnp.where(kept, 0, x).sum(-1, keepdims=True) / max(x.shape[-1] - k, 1)
        return jnp.where(kept, x, rest)

    def message_bytes(shape: tuple[int, ...]) -> int:
        if len(shape) < 2:
            raise InputError("compressor top_classes is only for soft decisions; use top_k for parameters")
        if k > shape[-1]:
            raise InputError(
                f"compressor top_classes:{k} keeps more classes than there are ({shape[-1]}); use a smaller number"
            )
        # The remaining mass is sent too, because an estimate may lie outside the simplex.
        return math.prod(shape[:-1]) * (k * (number_bytes() + _index_bytes(shape[-1])) + number_bytes())

    return Compressor(compress, message_bytes)


def top_k(part: float) -> Compressor:
    """Keep the `k` entries of largest magnitude; the others become 0.

    The message contains the values and the indices of the kept entries. For a message of `P` numbers, `δ = k / P`
    (Stich et al., NeurIPS 2018).

    Args:
      part: the number `k` if at least 1, or the fraction `k / P` if below 1.
    """

    def compress(key: jax.Array, x: jax.Array) -> jax.Array:
        flat = x.ravel()
        return jnp.where(largest(jnp.abs(flat), _count(part, x.shape)), flat, 0).reshape(x.shape)

    return Compressor(compress, lambda shape: _count(part, shape) * (number_bytes() + _index_bytes(math.prod(shape))))


def random_k(part: float) -> Compressor:
    """Keep `k` uniformly drawn entries; the others become 0.

    For a message of `P` numbers, `δ = k / P`, and the inequality that defines `δ` is an equality. The sender and the
    receiver derive the choice of entries from a shared seed, so only values are sent.

    Args:
      part: the number `k` if at least 1, or the fraction `k / P` if below 1.
    """

    def compress(key: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.where(random_subset(key, x.shape, _count(part, x.shape)), x, 0)

    return Compressor(compress, lambda shape: number_bytes() * _count(part, shape))


def random_subset(key: jax.Array, shape: tuple[int, ...], k: int) -> jax.Array:
    """Draw a mask with `k` true entries, uniformly without replacement."""
    size = math.prod(shape)
    # XLA's top_k is fast only for floats. 30 random bits plus 2**23 are the bits of a positive, finite, normal float.
    ranks = jax.lax.bitcast_convert_type((jax.random.bits(key, (size,), jnp.uint32) >> 2) + 2**23, jnp.float32)
    return largest(ranks, k).reshape(shape)


def largest(x: jax.Array, k: int) -> jax.Array:
    """Find the mask of the `k` largest entries of a non-negative `x` `[P]`; of equal entries, the first ones win.

    XLA's `top_k` is fast on CPUs. On other backends it sorts the whole array, so `largest_by_bits` is used instead.
    """
    if sharding.platform() == "cpu":
        _, kept = jax.lax.top_k(x, k)
        return jnp.zeros(x.shape, bool).at[kept].set(True, unique_indices=True)
    return largest_by_bits(x, k)


def largest_by_bits(x: jax.Array, k: int) -> jax.Array:
    """Find the mask that `largest` returns, by counting entries in several passes over `x`.

    Non-negative floats have the same order as the whole numbers that their bits represent, so the `k`-th largest entry
    can be found bit by bit.
    """
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32 if x.dtype.itemsize == 4 else jnp.uint64)
    place = jnp.arange(len(x), dtype=bits.dtype)

    def most(width: int, holds: Callable[[jax.Array], jax.Array]) -> jax.Array:
        """Find the largest number of `width` bits that satisfies `holds`, which is monotone and true for 0."""

        def with_bit(turn: jax.Array, found: jax.Array) -> jax.Array:
            tried = found | (jnp.ones((), bits.dtype) << (width - 1 - turn).astype(bits.dtype))
            return jnp.where(holds(tried), tried, found)

        return jax.lax.fori_loop(0, width, with_bit, jnp.zeros((), bits.dtype))

    least = most(8 * x.dtype.itemsize - 1, lambda tried: (bits >= tried).sum() >= k)  # without the sign bit
    above, equal = bits > least, bits == least
    needed = k - above.sum()
    end = most(len(x).bit_length(), lambda tried: (equal & (place < tried)).sum() <= needed)
    return above | (equal & (place < end))


def qsgd(levels: int) -> Compressor:
    """QSGD (Alistarh et al., NeurIPS 2017): send the norm, the signs, and magnitudes rounded randomly to `s` levels.

    The rounding is unbiased. The decoded message is divided by `τ = 1 + min(P / s², √P / s)`, which makes the
    compression a contraction with `δ = 1 / τ` (Koloskova, Stich, Jaggi, ICML 2019, section 3.5). A message contains the
    norm and `⌈log₂(2s + 1)⌉` bits per entry; there is no entropy coding.
    """

    def excess(shape: tuple[int, ...]) -> float:
        size = math.prod(shape)
        return 1 + min(size / levels**2, math.sqrt(size) / levels)

    def compress(key: jax.Array, x: jax.Array) -> jax.Array:
        norm = jnp.linalg.norm(x)
        scaled = levels * jnp.abs(x) / jnp.where(norm > 0, norm, 1)
        rounded = jnp.floor(scaled + jax.random.uniform(key, x.shape))
        return norm / (levels * excess(x.shape)) * jnp.sign(x) * rounded

    def message_bytes(shape: tuple[int, ...]) -> int:
        return number_bytes() + math.ceil(math.prod(shape) * (2 * levels).bit_length() / 8)

    return Compressor(compress, message_bytes)


def sign() -> Compressor:
    """Keep the signs, and scale them by the mean magnitude (Karimireddy et al., ICML 2019).

    Here `δ = ‖x‖₁² / (P ‖x‖²) ≥ 1 / P`.
    """

    def compress(key: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.abs(x).mean() * jnp.where(x < 0, -1, 1).astype(x.dtype)

    return Compressor(compress, lambda shape: number_bytes() + math.ceil(math.prod(shape) / 8))


def _count(part: float, shape: tuple[int, ...]) -> int:
    size = math.prod(shape)
    k = max(1, round(part * size)) if part < 1 else int(part)
    if k > size:
        raise InputError(
            f"a compressor cannot keep {k} of the {size} numbers in a message; use at most {size}, or a fraction "
            "below 1"
        )
    return k


def _index_bytes(size: int) -> int:
    """Return the size in bytes (1, 2 or 4) of the smallest unsigned type that can index `size` entries."""
    return next((width for width in (1, 2) if size <= 256**width), 4)


def _part(text: str) -> float:
    """Parse a positive whole number, or a fraction below 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    # Written with `not`, the condition also refuses NaN.
    if not 0 < value < 2**31 or (value >= 1 and value != int(value)):
        raise ValueError("must be a positive whole number, or a fraction below 1")
    return value


COMPRESSORS.add(Entry("identity", identity))
COMPRESSORS.add(Entry("float16", float16))
COMPRESSORS.add(Entry("uint8", uint8))
COMPRESSORS.add(Entry("sign", sign))
COMPRESSORS.add(Entry("top_classes", top_classes, (Argument("K", whole(1)),)))
COMPRESSORS.add(Entry("top_k", top_k, (Argument("K", _part),)))
COMPRESSORS.add(Entry("random_k", random_k, (Argument("K", _part),)))
COMPRESSORS.add(Entry("qsgd", qsgd, (Argument("LEVELS", whole(1)),)))
