"""Adaptive weights: each device learns how much weight to give to each neighbour."""

import jax
import jax.numpy as jnp

from ddjax.errors import check_number
from ddjax.mixing.base import one_per_link, uncompressed
from ddjax.mixing.registry import MIXERS, MixerEntry
from ddjax.networks import Dense, NetworkRound
from ddjax.stacked import flatten
from ddjax.types import Mixer, MixerState, PyTree


def adaptive(forgetting: float = 0.05) -> Mixer:
    """Weighted average whose weights adapt by the relative-variance rule (Tu and Sayed, IEEE CAMSAP 2011).

    See also Sayed, Adaptation, Learning, and Optimization over Networks, 2014. For each neighbour `m`, device `n`
    tracks the squared distance between the value that it receives from `m` and its own value after the last mixing,
    `γ²_nm ← (1 − ν) γ²_nm + ν ‖x_m − x_n^last‖²`. (The squared norm is a mean over the entries that the device has
    mixed before.) The device distributes the weight `1 − W[n, n]` among its neighbours in proportion to `1 / γ²_nm`.
    Neighbours with noisy or unrelated soft decisions therefore lose weight, although the rule uses no labels. Unlike in
    the paper, the device's own weight stays `W[n, n]`. Otherwise a device would soon give all weight to its own value,
    because this value changes little between two mixings. The weights in each row sum to 1, but the weights in a column
    need not, so mixing does not preserve the mean over devices. The computation covers all pairs of devices, even if
    `W` is sparse.

    Args:
      forgetting: `ν` in (0, 1], the weight of the newest squared distance.

    Raises:
      InputError: `ν` is outside (0, 1].

    Examples:
      >>> mixer = ddjax.adaptive()
      >>> mixed, state, sent = mixer.mix(key, x, mixer.init(x, 1), network)
      >>> print(mixed[:, 0].round(2))  # the first mixing has no distances yet
      [1. 1. 1. 0.]
    """
    check_number("forgetting", forgetting, maximum=1, positive=True)

    def init(x: PyTree, leading: int) -> MixerState:
        devices = jax.tree.leaves(x)[0].shape[0]
        # NaN marks an entry that has never been mixed.
        last = jax.tree.map(lambda leaf: jnp.full(leaf.shape, jnp.nan, leaf.dtype), x)
        return MixerState(last, jnp.ones((devices, devices)))

    def mix(key: jax.Array, x: PyTree, state: MixerState, network: NetworkRound):
        received = Dense(network.received.dense())
        flat, last = flatten(x), flatten(state.rows)
        known = jnp.isfinite(last)
        last = jnp.where(known, last, 0)
        # Mean squared distances for all pairs of devices n and m, over the entries that n has mixed before.
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
