"""The coordinate-wise trimmed mean, as a user's own file: `--include=trimmed_mean.py --mixing=trimmed_mean:K`."""

import jax
import jax.numpy as jnp

from ddjax.mixing import MIXERS, MixerEntry
from ddjax.mixing.base import one_per_link, uncompressed
from ddjax.registry import Argument, whole


def trimmed_mean(trimmed: int):
    """The mean of a device's own value and those it receives, without the K largest and the K smallest (Yin et al.,
    ICML 2018); the median where that leaves nothing. Each coordinate is trimmed for itself."""

    def mix(key, x, state, network):
        matrix = network.received.dense()
        counted = ((matrix != 0) | jnp.eye(len(matrix), dtype=bool))[:, :, None]
        number = counted.sum(1)  # [N, 1], with its own
        cut = jnp.minimum(trimmed, (number - 1) // 2)

        def middle(leaf):
            flat = leaf.reshape(1, len(matrix), -1)
            ranked = jnp.sort(jnp.where(counted, flat, jnp.inf), axis=1)  # what it does not receive comes last
            place = jnp.arange(len(matrix))[None, :, None]
            kept = (place >= cut[:, None]) & (place < (number - cut)[:, None])
            mean = jnp.where(kept, ranked, 0).sum(1) / (number - 2 * cut)
            return mean.reshape(leaf.shape).astype(leaf.dtype)

        return jax.tree.map(middle, x), state, one_per_link(network)

    return uncompressed(mix, name="trimmed_mean", weights="row", keeps_mean=False)


MIXERS.add(MixerEntry("trimmed_mean", trimmed_mean, (Argument("K", whole(0)),)))
