"""The weighted average with the neighbours."""

import jax

from ddjax.mixing.base import one_per_link, uncompressed
from ddjax.mixing.registry import MIXERS, MixerEntry
from ddjax.networks import NetworkRound
from ddjax.types import Mixer, MixerState, PyTree


def weighted_average() -> Mixer:
    """Every device sends `x` to its out-neighbours and takes `x_n ← Σ_m W[n, m] x_m`."""

    def mix(key: jax.Array, x: PyTree, state: MixerState, network: NetworkRound):
        return network.received.product(x), state, one_per_link(network)

    return uncompressed(mix, name="average", linear=True)


MIXERS.add(MixerEntry("average", weighted_average))
