"""Gossip: pushes to one neighbour."""

import jax
import jax.numpy as jnp

from ddjax.mixing.base import uncompressed
from ddjax.mixing.registry import MIXERS, MixerEntry
from ddjax.networks import NetworkRound
from ddjax.types import Mixer, MixerState, PyTree, Traffic


def gossip() -> Mixer:
    """Every device pushes `x` to one out-neighbour, drawn uniformly; a device averages what it got with its own.

    This is the merge of gossip learning (Hegedűs, Danner, Jelasity, DAIS 2019) at equal ages, which soft decisions
    always have, since all devices update the same rows; several messages are merged at once instead of one after
    another. Only the links of `W` matter. The mean is kept in expectation alone, and that on regular graphs.
    """

    def mix(key: jax.Array, x: PyTree, state: MixerState, network: NetworkRound):
        pushed = network.sent.pushes(network.sent.push_targets(key))
        alike = network.received.weighted(jnp.ones(network.sent.devices), network.delivered(pushed))
        return alike.product(x), state, Traffic({"value": pushed})

    return uncompressed(mix, name="gossip", weights="row", keeps_mean=False)


MIXERS.add(MixerEntry("gossip", gossip))
