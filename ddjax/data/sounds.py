"""Log-mel spectrograms of sounds, computed in JAX."""

import jax
import jax.numpy as jnp
import numpy as np

from ddjax.errors import InputError
from ddjax.types import working_dtype

BANDS = 32
_WINDOW, _HOP = 0.032, 0.016  # seconds
_FLOOR = 1e-6  # added to each power; far below the power of a full-scale sound, and above the rounding noise of 16 bits
_AT_A_TIME = 256  # sounds per step, to save memory


def log_mel(sounds: np.ndarray, sample_rate: int, training: np.ndarray | None = None) -> np.ndarray:
    """Compute log-mel spectrograms: the logarithm of the power in 32 bands that the ear perceives as equally wide.

    A Hann window of 32 ms is placed every 16 ms. The bands are triangles on the mel scale of O'Shaughnessy (1987), from
    0 to half the sample rate.

    Args:
      sounds: sounds `[M, S]`: floating-point numbers from −1 to 1, or integers. 8-bit and 16-bit integers are assumed
        to use the full range of their dtype. Wider integers are assumed to use the range of 16, 24 or 32 bits: the
        smallest that can hold the training sounds.
      sample_rate: sample rate in Hz.
      training: training sounds `[M, S]`; `None` if `sounds` are the training sounds.

    Returns:
      Spectrograms `[M, T, 32]` in the working dtype.

    Raises:
      InputError: the shape is not `[M, S]`, the sample rate is below 1,000 Hz, the sounds are shorter than a window, or
        the training sounds are silent.
    """
    if sounds.ndim == 3 and sounds.shape[-1] == 1:
        sounds = sounds[..., 0]
    if sounds.ndim != 2:
        raise InputError(
            f"sounds must be [examples, samples] with one channel, got {list(sounds.shape)}; leave out the sample rate "
            "if the inputs are not sounds"
        )
    size, hop = round(_WINDOW * sample_rate), round(_HOP * sample_rate)
    if sample_rate < 1000 or sounds.shape[1] < size:
        raise InputError(
            f"sounds of {sounds.shape[1]} samples at {sample_rate} Hz are too short or sampled too slowly; at least "
            f"1000 Hz and {_WINDOW:g} seconds are needed"
        )
    middle, scale = _full_scale(sounds if training is None else training)
    bands = _bands(sample_rate, size)
    places = np.arange(0, sounds.shape[1] - size + 1, hop)[:, None] + np.arange(size)
    window = np.hanning(size + 1)[:-1]

    @jax.jit
    def features(x: jax.Array) -> jax.Array:
        frames = ((x.astype(working_dtype()) - middle) / scale)[:, places] * window
        power = jnp.abs(jnp.fft.rfft(frames)) ** 2 / size
        return jnp.log(power @ bands + _FLOOR)

    parts = [sounds[start : start + _AT_A_TIME] for start in range(0, max(1, len(sounds)), _AT_A_TIME)]
    found = np.concatenate([np.asarray(features(jnp.asarray(part))) for part in parts]).astype(working_dtype())
    if training is None and np.ptp(found) == 0:
        raise InputError("the sounds are silent: all of their log-mel features are equal")
    return found


def _full_scale(sounds: np.ndarray) -> tuple[float, float]:
    """Return the number that represents silence, and the largest possible distance of a sample from this number."""
    if sounds.dtype.kind == "f":
        return 0.0, 1.0
    if sounds.dtype.itemsize <= 2:
        scale = 2.0 ** (8 * sounds.dtype.itemsize - 1)
        return (scale if sounds.dtype.kind == "u" else 0.0), scale
    peak = max(-float(sounds.min()), float(sounds.max()))
    return 0.0, next((scale for scale in (2.0**15, 2.0**23) if peak <= scale), 2.0**31)


def _bands(sample_rate: int, size: int) -> np.ndarray:
    """Compute the weight of each frequency in each band, `[size // 2 + 1, 32]`."""

    def mel(hertz: np.ndarray) -> np.ndarray:
        return 2595 * np.log10(1 + hertz / 700)

    frequencies = mel(np.fft.rfftfreq(size, 1 / sample_rate))
    edges = np.linspace(0, mel(np.array(sample_rate / 2)), BANDS + 2)
    left, middle, right = edges[:-2], edges[1:-1], edges[2:]
    at = frequencies[:, None]
    return np.maximum(0, np.minimum((at - left) / (middle - left), (right - at) / (right - middle)))


def padded(sounds: list[np.ndarray], length: int) -> np.ndarray:
    """Cut sounds to `length` samples, or pad them with zeros; return an array `[M, length]`."""
    found = np.zeros((len(sounds), length), sounds[0].dtype)
    for row, sound in zip(found, sounds, strict=True):
        row[: len(sound)] = sound[:length]
    return found
