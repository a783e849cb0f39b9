"""Gossip: each device pushes to one neighbour."""

import jax
import jax.numpy as jnp

from ddjax.mixing.base import uncompressed
from ddjax.mixing.registry import MIXERS, MixerEntry
from ddjax.networks import NetworkRound
from ddjax.types import Mixer, MixerState, PyTree, Traffic


def gossip() -> Mixer:
    """Push `x` to one out-neighbour, drawn uniformly; every device averages its own value with the received ones.

    This is the merge of gossip learning (Hegedűs, Danner, Jelasity, DAIS 2019) at equal ages. Soft decisions always
    have equal ages, because all devices update the same rows. Several messages are merged at once instead of one after
    another. Only the links of `W` are used, not its weights. The mean is kept only in expectation, and only on regular
    graphs.
    """

    def mix(key: jax.Array, x: PyTree, state: MixerState, network: NetworkRound):
        pushed = network.sent.pushes(network.sent.push_targets(key))
        alike = network.received.weighted(jnp.ones(network.sent.devices), network.delivered(pushed))
        return alike.product(x), state, Traffic({"value": pushed})

    return uncompressed(mix, name="gossip", weights="row", keeps_mean=False)


MIXERS.add(MixerEntry("gossip", gossip))
