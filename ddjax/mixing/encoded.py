"""Compression of another mixer's messages."""

import jax

from ddjax.mixing.base import compress, payload
from ddjax.mixing.compression import Compressor
from ddjax.networks import NetworkRound
from ddjax.stacked import stacked_bytes
from ddjax.types import Mixer, MixerState, PyTree, Traffic


def encoded(inner: Mixer, compressor: Compressor) -> Mixer:
    """Compress the messages of another mixer: `x ← inner(q) + x − q`, where `q` is the compressed `x`.

    With a weighted average, the rule becomes `x_n ← x_n + Σ_m W[n, m] (q_m − q_n)`, the compensating rule of Carli,
    Fagnani, Frasca, Zampieri (Automatica 2010). This rule preserves the mean under any compression, because the
    compression error stays with the sender. (With `choco`, the sender sends this error later.) A server's messages to
    the devices are not compressed.

    Args:
      inner: mixer whose messages are compressed.
      compressor: the compression of one device's message.

    Examples:
      >>> mixer = ddjax.encoded(ddjax.weighted_average(), compressor)
      >>> mixer.message_bytes(jnp.zeros((4, 1000)), 1).peer  # 10 of 1000 numbers, with their indices
      {'value': 60}
    """

    def mix(key: jax.Array, x: PyTree, state: MixerState, network: NetworkRound):
        sending, mixing = jax.random.split(key)
        q = compress(compressor, sending, x)
        mixed, state, sent = inner.mix(mixing, q, state, network)
        return jax.tree.map(lambda mixed, x, q: mixed + (x - q), mixed, x, q), state, sent

    def message_bytes(x: PyTree, leading: int) -> Traffic:
        saved = stacked_bytes(x) - compressor.message_bytes(payload(x))
        whole = inner.message_bytes(x, leading)
        return whole._replace(
            peer={kind: size - saved for kind, size in whole.peer.items()},
            up={kind: size - saved for kind, size in whole.up.items()},
        )

    return inner._replace(mix=mix, message_bytes=message_bytes, compressed=True)
