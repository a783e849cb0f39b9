"""Averaging at a server."""

import jax
import jax.numpy as jnp

from ddjax.mixing.registry import MIXERS, MixerEntry
from ddjax.networks import NetworkRound
from ddjax.stacked import stacked_bytes
from ddjax.types import Mixer, MixerState, PyTree, Traffic


def server() -> Mixer:
    """Average at a server: all devices send `x`, and the server sends back the mean.

    This equals mixing with the uniform `W`. The graph is not used.

    Examples:
      >>> mixer = ddjax.server()
      >>> mixed, state, sent = mixer.mix(key, x, mixer.init(x, 1), network)
      >>> print(mixed[:, 0].round(2))
      [0.75 0.75 0.75 0.75]
    """

    def mix(key: jax.Array, x: PyTree, state: MixerState, network: NetworkRound):
        mean = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf.mean(0), leaf.shape), x)
        each = jnp.ones(jax.tree.leaves(x)[0].shape[0], jnp.int32)
        return mean, state, Traffic(up={"value": each}, down={"mean": each})

    def message_bytes(x: PyTree, leading: int) -> Traffic:
        return Traffic(up={"value": stacked_bytes(x)}, down={"mean": stacked_bytes(x)})

    return Mixer(lambda x, leading: MixerState(), mix, message_bytes, name="server", weights="links", uses_graph=False)


MIXERS.add(MixerEntry("server", server, uses=(), contents={"value": "{value}", "mean": "the mean of {value}"}))
