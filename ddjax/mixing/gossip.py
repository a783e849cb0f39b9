"""Gossip: each device sends its value to one neighbour."""

import jax
import jax.numpy as jnp

from ddjax.mixing.base import uncompressed
from ddjax.mixing.registry import MIXERS, MixerEntry
from ddjax.networks import NetworkRound
from ddjax.types import Mixer, MixerState, PyTree, Traffic


def gossip() -> Mixer:
    """Push `x` to a uniformly drawn out-neighbour; every device averages its own value and the values that it receives.

    This average is the merge of gossip learning (Hegedűs, Danner, Jelasity, DAIS 2019) for models of equal age. Soft
    decisions always have equal ages, because all devices update the same rows. A device merges all the messages of a
    round together instead of one after another. The mixer uses the links of `W`, but not its weights. It preserves the
    mean only in expectation, and only on regular graphs.
    """

    def mix(key: jax.Array, x: PyTree, state: MixerState, network: NetworkRound):
        pushed = network.sent.pushes(network.sent.push_targets(key))
        alike = network.received.weighted(jnp.ones(network.sent.devices), network.delivered(pushed))
        return alike.product(x), state, Traffic({"value": pushed})

    return uncompressed(mix, name="gossip", weights="row", keeps_mean=False)


MIXERS.add(MixerEntry("gossip", gossip))
