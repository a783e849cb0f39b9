"""Neighbourhoods that adapt: devices learn whom to listen to."""

import jax
import jax.numpy as jnp

from ddjax.errors import check_number
from ddjax.mixing.base import one_per_link, uncompressed
from ddjax.mixing.registry import MIXERS, MixerEntry
from ddjax.networks import Dense, NetworkRound
from ddjax.stacked import flatten
from ddjax.types import Mixer, MixerState, PyTree


def adaptive(forgetting: float = 0.05) -> Mixer:
    """A weighted average whose weights adapt while it runs, by the relative-variance rule of Tu and Sayed (IEEE
    CAMSAP 2011; Sayed, Adaptation, Learning, and Optimization over Networks, 2014).

    Device `n` follows how far what it hears lies from what it combined the last time, `γ²_nm ← (1 − ν) γ²_nm + ν ‖x_m −
    x_n^last‖²` (a mean over the entries mixed before), and shares `1 − W[n, n]` among its neighbours in proportion to
    `1 / γ²_nm`: those with noisy or alien soft decisions fade out, and no label is needed. Unlike in the paper its own
    weight stays `W[n, n]`: between two mixings a device moves little, and would soon hear itself alone. What a device
    receives is weighted to sum to 1, so the mean is not kept. It works on all pairs, whatever the form of `W`.

    Args:
      forgetting: `ν` in (0, 1].
    """

    check_number("forgetting", forgetting, maximum=1, positive=True)

    def init(x: PyTree, leading: int) -> MixerState:
        devices = jax.tree.leaves(x)[0].shape[0]
        # Not a number: never mixed.
        last = jax.tree.map(lambda leaf: jnp.full(leaf.shape, jnp.nan, leaf.dtype), x)
        return MixerState(last, jnp.ones((devices, devices)))

    def mix(key: jax.Array, x: PyTree, state: MixerState, network: NetworkRound):
        received = Dense(network.received.dense())
        flat, last = flatten(x), flatten(state.rows)
        known = jnp.isfinite(last)
        last = jnp.where(known, last, 0)
        # Mean squares over the entries that n has mixed before, of all pairs at once.
        squares = (last**2).sum(1)[:, None] - 2 * _dot(last, flat.T) + _dot(known.astype(flat.dtype), (flat**2).T)
        squares = jnp.maximum(squares / jnp.maximum(known.sum(1, keepdims=True), 1), 1e-12)
        heard = received.links()
        seen = (heard == 1) & known.any(1, keepdims=True)
        spread = jnp.where(seen, (1 - forgetting) * state.rest + forgetting * squares, state.rest)
        weights = heard / spread
        own = received.own_weights
        weights *= ((1 - own) / jnp.maximum(weights.sum(1), 1e-12))[:, None]
        x = Dense(weights + jnp.diag(own)).product(x)
        return x, MixerState(x, spread), one_per_link(network)

    return uncompressed(mix, init, name="adaptive", weights="row", keeps_mean=False)


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


MIXERS.add(MixerEntry("adaptive", adaptive))
