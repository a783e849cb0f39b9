"""Checks of a mixer."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ddjax import sharding
from ddjax.mixing import check_mixing
from ddjax.networks import Network, as_network, build_topology
from ddjax.testing.base import check_traffic, close, in_double_precision, same_shapes
from ddjax.types import Mixer, MixerState, PyTree

_DEVICES, _TIMES = 6, 3


def check_mixer(
    make: Callable[[], Mixer],
    *,
    topology: str = "exponential",
    loop: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> None:
    """Check a mixer on parameters and on soft decisions.

    A mixer must:

    - give the same numbers whether compiled or not, on dense matrices and on links, and on one shard and on several;
    - keep shapes and dtypes (float64 included), and allow donated arguments;
    - keep the mean if `keeps_mean` is true;
    - use the same names for the counts and for the sizes of its messages.

    Args:
      make: function that makes the mixer; called in single and in double precision.
      topology: specification of a fixed graph that the mixer accepts.
      loop: `(x [N, P], W [N, N]) → [N, P]`, the result of the first mixing, computed by a plain loop over devices in
        NumPy. The mixer must give the same result.

    Raises:
      AssertionError: a check fails; the message says what is wrong.
      InputError: the mixer refuses the topology.

    Examples:
      >>> check_mixer(ddjax.weighted_average, loop=lambda x, w: np.stack([w[n] @ x for n in range(len(w))]))
    """
    mixer = make()
    dense, links = (
        as_network(build_topology(topology, _DEVICES, stochastic=mixer.weights, product=product).network)
        for product in ("dense", "gather")
    )
    check_mixing(mixer, dense)
    if mixer.keeps_mean and mixer.weights == "row":
        # Many mixers keep the mean only if the matrix is symmetric.
        directed = as_network(build_topology("directed_ring", _DEVICES, stochastic="row").network)
        _check_mean(_decisions(), _mix(mixer, _decisions(), 2, directed)[0])
    for leading, x in ((1, _parameters()), (2, _decisions())):
        compiled = _mix(mixer, x, leading, dense)
        close(_mix(mixer, x, leading, dense, compile=False), compiled, "compiled or not")
        *gathered, counts = _mix(mixer, x, leading, links)
        close(tuple(gathered), compiled[:2], "a dense matrix or links")
        by_link = links.at_round(jax.random.key(0), jnp.int32(0)).sent.links().shape
        check_traffic(counts, mixer.message_bytes(x, leading), by_link, _DEVICES)
        mixed, state, sent = compiled
        same_shapes(mixed, x, "what is mixed")
        same_shapes(state, jax.eval_shape(lambda x, leading=leading: mixer.init(x, leading), x), "the mixer's state")
        check_traffic(sent, mixer.message_bytes(x, leading), (_DEVICES, _DEVICES), _DEVICES)
        if mixer.keeps_mean:
            _check_mean(x, mixed)
        _check_rows(mixer, state, x, leading)
        if jax.device_count() > 1:
            with jax.set_mesh(sharding.mesh()):
                shards = jax.tree.map(np.asarray, _mix(mixer, x, leading, dense))
            close(shards, compiled, "one shard or several")
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: leaf.astype(np.float64), _decisions())
        in_double_precision(_mix(make(), wide, 2, as_network(dense), 1)[:2], "mixed")
    if loop:
        _check_loop(mixer, dense, loop)


def _parameters() -> PyTree:
    one, two = jax.random.split(jax.random.key(1))
    return {"a": jax.random.normal(one, (_DEVICES, 3, 2)), "b": jax.random.normal(two, (_DEVICES, 4))}


def _decisions() -> jax.Array:
    return jax.nn.softmax(jax.random.normal(jax.random.key(2), (_DEVICES, 5, 4)))


def _mix(mixer: Mixer, x: PyTree, leading: int, network: Network, times: int = _TIMES, compile: bool = True) -> Any:
    """Mix a few times, each time with a new key, and donate arguments if compiled."""
    state, sent = mixer.init(x, leading), None
    mix = jax.jit(mixer.mix, donate_argnums=(1, 2)) if compile else mixer.mix
    x = jax.tree.map(jnp.copy, x)
    for number in range(times):
        round = network.at_round(jax.random.key(number), jnp.int32(number))
        x, state, sent = mix(jax.random.key(number), x, state, round)
        # Two outputs must not share a buffer that is donated in the next call.
        x, state = jax.tree.map(jnp.copy, (x, state))
    return x, state, sent


def _check_mean(x: PyTree, mixed: PyTree) -> None:
    after, before = (jax.tree.map(lambda leaf: leaf.mean(0), tree) for tree in (mixed, x))
    close(after, before, "the mean over devices")


def _check_rows(mixer: Mixer, state: MixerState, x: PyTree, leading: int) -> None:
    start = jax.tree.leaves(x)[0].shape[:leading]
    for leaf in jax.tree.leaves(state.rows):
        assert leaf.shape[:leading] == start, (
            f"state.rows has a leaf of shape {leaf.shape}, which must begin with {start}"
        )


def _check_loop(mixer: Mixer, network: Network, loop: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
    x = np.asarray(_parameters()["b"])
    expected = loop(x.astype(float), network.sample_matrices()[0].toarray())
    found, _, _ = _mix(mixer, jnp.asarray(x), 1, network, times=1)
    close(found, expected, "the plain loop")
