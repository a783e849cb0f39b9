"""Another mixer, with its messages compressed."""

import jax

from ddjax.mixing.base import compress, payload
from ddjax.mixing.compression import Compressor
from ddjax.networks import NetworkRound
from ddjax.stacked import stacked_bytes
from ddjax.types import Mixer, MixerState, PyTree, Traffic


def encoded(inner: Mixer, compressor: Compressor) -> Mixer:
    """Compresses the messages of another mixer: `x ← inner(q) + x − q`, with `q` the compressed `x`.

    With a weighted average this is `x_n ← x_n + Σ_m W[n, m] (q_m − q_n)`, which keeps the mean whatever the compression
    (the compensating rule of Carli, Fagnani, Frasca, Zampieri, Automatica 2010): what was lost stays with its sender.
    `choco` sends it later. A server's messages to the devices are not compressed.
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
