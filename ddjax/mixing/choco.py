"""CHOCO-Gossip: each device sends the compressed difference between its value and a public copy of this value."""

import jax
import jax.numpy as jnp

from ddjax.errors import check_number
from ddjax.mixing.base import compress, payload
from ddjax.mixing.compression import Compressor
from ddjax.mixing.registry import MIXERS, MixerEntry
from ddjax.networks import NetworkRound
from ddjax.types import Mixer, MixerState, PyTree, Traffic


def choco(compressor: Compressor, step_size: float) -> Mixer:
    """CHOCO-Gossip (Koloskova, Stich, Jaggi, ICML 2019, algorithm 1); within `dsgd` it is CHOCO-SGD (algorithm 2).

    Every device has a public copy `x̂_n` of its value, which its neighbours also store. The device sends the compressed
    difference `Q(x_n − x̂_n)`, and the copy becomes `x̂_n ← x̂_n + Q(x_n − x̂_n)`. Then the device updates its value,
    `x_n ← x_n + γ Σ_m W[n, m] (x̂_m − x̂_n)`. The copies are initially zero. All copies of one device's value are
    equal, so the simulation stores only one per device. Convergence has been proved for symmetric `W`.

    Args:
      compressor: `Q`, the compression of a difference.
      step_size: `γ` in (0, 1]; stronger compression needs a smaller value.

    Raises:
      InputError: `γ` is outside (0, 1].

    Examples:
      >>> mixer = ddjax.choco(compressor, step_size=0.04)
      >>> mixer.message_bytes(jnp.zeros((4, 1000)), 1).peer  # 10 of 1000 numbers, with their indices
      {'difference': 60}
    """
    check_number("choco_step_size", step_size, maximum=1, positive=True)

    def mix(key: jax.Array, x: PyTree, state: MixerState, network: NetworkRound):
        difference = jax.tree.map(jnp.subtract, x, state.rows)
        copies = jax.tree.map(jnp.add, state.rows, compress(compressor, key, difference))
        x = jax.tree.map(
            lambda x, mixed, own: x + step_size * (mixed - own), x, network.received.product(copies), copies
        )
        return x, MixerState(copies), Traffic({"difference": network.sent.links()})

    return Mixer(
        init=lambda x, leading: MixerState(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), x)),
        mix=mix,
        message_bytes=lambda x, leading: Traffic({"difference": compressor.message_bytes(payload(x))}),
        name="choco",
        fixed_graph=True,
        lossless=True,
        running=True,
    )


MIXERS.add(
    MixerEntry(
        "choco",
        choco,
        contents={"difference": "difference of {value}"},
        settings={"compressor": "compressor", "step_size": "choco_step_size"},
        # One hundredth of the entries is enough for parameters, but too little for soft decisions.
        usual={
            "parameters": {"compressor": "top_k:0.01", "choco_step_size": 0.04},
            "soft_decisions": {"compressor": "top_k:0.1", "choco_step_size": 0.4},
        },
    )
)
