"""Weighted average over the neighbours."""

import jax

from ddjax.mixing.base import one_per_link, uncompressed
from ddjax.mixing.registry import MIXERS, MixerEntry
from ddjax.networks import NetworkRound
from ddjax.types import Mixer, MixerState, PyTree


def weighted_average() -> Mixer:
    """Average over the neighbours: every device sends `x` to its out-neighbours and sets `x_n ← Σ_m W[n, m] x_m`.

    Examples:
      >>> mixer = ddjax.weighted_average()
      >>> mixed, state, sent = mixer.mix(key, x, mixer.init(x, 1), network)
      >>> print(mixed[:, 0].round(2))  # device 1 has a 3, which it shares with its two neighbours
      [1. 1. 1. 0.]
    """

    def mix(key: jax.Array, x: PyTree, state: MixerState, network: NetworkRound):
        return network.received.product(x), state, one_per_link(network)

    return uncompressed(mix, name="average", linear=True)


MIXERS.add(MixerEntry("average", weighted_average))
