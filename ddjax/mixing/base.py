"""Functions that several mixers use."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ddjax.mixing.compression import Compressor
from ddjax.networks import NetworkRound
from ddjax.stacked import flatten, stacked_bytes, unflatten
from ddjax.types import Mixer, MixerState, PyTree, Traffic


def uncompressed(mix: Callable, init: Callable = lambda x, leading: MixerState(), **truths: Any) -> Mixer:
    """Make a mixer that sends `x` uncompressed.

    Args:
      mix: `Mixer.mix`.
      init: `Mixer.init`; by default the mixer has no state.
      truths: other attributes of the `Mixer`.
    """
    return Mixer(init, mix, lambda x, leading: Traffic({"value": stacked_bytes(x)}), **truths)


def one_per_link(network: NetworkRound) -> Traffic:
    """Count one message, which contains `x`, on every link."""
    return Traffic({"value": network.sent.links()})


def payload(x: PyTree) -> tuple[int, ...]:
    """Return the shape of one device's message as a compressor receives it."""
    leaves = jax.tree.leaves(x)
    return leaves[0].shape[1:] if len(leaves) == 1 else (sum(math.prod(leaf.shape[1:]) for leaf in leaves),)


def compress(compressor: Compressor, key: jax.Array, x: PyTree) -> PyTree:
    """Compress the message of each device with a separate key; several arrays are compressed as one vector."""
    leaves, structure = jax.tree.flatten(x)
    devices = leaves[0].shape[0]
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(devices))
    one = jax.vmap(compressor.compress)
    if len(leaves) == 1:
        return jax.tree.unflatten(structure, [one(keys, leaves[0])])
    return unflatten(one(keys, flatten(x)), x)
