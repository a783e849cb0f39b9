"""Mixers: how what the devices hold is combined over the network. To add one, see BUILD_NOTES."""

import math
import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ddjax.mixing.compression import Compressor, number_bytes
from ddjax.networks.matrices import Sparse, dense, links, pushes, row_stochastic
from ddjax.sharding import by_column
from ddjax.stacked import expand, flatten, stacked_bytes, unflatten
from ddjax.types import Mixer, MixerState, PyTree, Traffic


def weighted_average() -> Mixer:
    """Every device sends `x` to its out-neighbours and takes `x_n ← Σ_m W[n, m] x_m`, as one matrix product
    or, of a `networks.Sparse` `W`, as a sum over its links."""

    def mix(key: jax.Array, x: PyTree, state: MixerState, mixing_matrix: Any):
        return _product(mixing_matrix, x), state, _along(links(mixing_matrix))

    return _uncompressed(mix)


def encoded(inner: Mixer, compressor: Compressor) -> Mixer:
    """Another mixer, with messages compressed on their way: `x ← inner(q) + x − q`, with `q` the compressed `x`.

    With a weighted average this is `x_n ← x_n + Σ_m W[n, m] (q_m − q_n)`, which keeps the mean whatever the compression
    (the compensating rule of Carli, Fagnani, Frasca, Zampieri, Automatica 2010): what was lost stays with its sender.
    `choco` sends it later. Of a server's traffic only the way up is compressed.
    """

    def mix(key: jax.Array, x: PyTree, state: MixerState, mixing_matrix: Any):
        sending, mixing = jax.random.split(key)
        q = _compress(compressor, sending, x)
        mixed, state, sent = inner.mix(mixing, q, state, mixing_matrix)
        return jax.tree.map(lambda mixed, x, q: mixed + (x - q), mixed, x, q), state, sent

    def message_bytes(x: PyTree, leading: int) -> Traffic:
        saved = stacked_bytes(x) - compressor.message_bytes(_payload(x))
        whole = inner.message_bytes(x, leading)
        return whole._replace(
            peer={kind: size - saved for kind, size in whole.peer.items()},
            up={kind: size - saved for kind, size in whole.up.items()},
        )

    return inner._replace(mix=mix, message_bytes=message_bytes)


def choco(compressor: Compressor, step_size: float) -> Mixer:
    """CHOCO-Gossip (Koloskova, Stich, Jaggi, ICML 2019, algorithm 1; within `dsgd`, algorithm 2, CHOCO-SGD).

    Every device keeps a public copy `x̂_n` of itself, which its neighbours know as well, and sends what it lacks,
    compressed: `x̂_n ← x̂_n + Q(x_n − x̂_n)`, then `x_n ← x_n + γ Σ_m W[n, m] (x̂_m − x̂_n)`. Copies start at zero. The
    neighbours' copies are all alike, so the simulation keeps one of each device. Convergence is proved for symmetric
    `W`.

    Args:
      compressor: `Q`.
      step_size: `γ` in (0, 1]; the harder the compression, the smaller.
    """

    def mix(key: jax.Array, x: PyTree, state: MixerState, mixing_matrix: Any):
        difference = jax.tree.map(jnp.subtract, x, state.rows)
        copies = jax.tree.map(jnp.add, state.rows, _compress(compressor, key, difference))
        x = jax.tree.map(
            lambda x, mixed, own: x + step_size * (mixed - own), x, _product(mixing_matrix, copies), copies
        )
        return x, MixerState(copies), Traffic({"difference": links(mixing_matrix)})

    return Mixer(
        init=lambda x, leading: MixerState(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), x)),
        mix=mix,
        message_bytes=lambda x, leading: Traffic({"difference": compressor.message_bytes(_payload(x))}),
        fixed_graph=True,
        running=True,
    )


def push_sum() -> Mixer:
    """Push-sum (Kempe, Dobra, Gehrke, FOCS 2003); within `dsgd`, stochastic gradient push (Assran et al., ICML 2019,
    algorithm 1). Exact averages on directed graphs, where a device knows its out-neighbours only.

    A device holds a numerator `u_n` and a weight `w_n`, mixed by a column-stochastic matrix, and `x_n = u_n / w_n`.
    What was added to `x` since the last mixing is added to the numerator, as gradients are there.
    A message is `x` and the weight: one number, for soft decisions one a row.
    """

    def init(x: PyTree, leading: int) -> MixerState:
        weight = jnp.ones(jax.tree.leaves(x)[0].shape[:leading])
        return MixerState((weight, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), x)))

    def mix(key: jax.Array, x: PyTree, state: MixerState, mixing_matrix: Any):
        weight, last = state.rows
        # u + (x − last) with u = w last; at first w is 1 and nothing was mixed, so the numerator is x.
        numerator = jax.tree.map(lambda x, last: x + (expand(weight, x) - 1) * last, x, last)
        weight = _product(mixing_matrix, weight)
        x = jax.tree.map(lambda u: u / expand(weight, u), _product(mixing_matrix, numerator))
        return x, MixerState((weight, x)), Traffic({"numerator and weight": links(mixing_matrix)})

    def message_bytes(x: PyTree, leading: int) -> Traffic:
        rows = math.prod(jax.tree.leaves(x)[0].shape[1:leading])
        return Traffic({"numerator and weight": stacked_bytes(x) + number_bytes() * rows})

    return Mixer(init, mix, message_bytes, weights="column", running=True)


def gossip() -> Mixer:
    """Every device pushes `x` to one out-neighbour, drawn uniformly; a device averages what it got with its own.

    The merge of gossip learning (Hegedűs, Danner, Jelasity, DAIS 2019) at equal ages, which soft decisions always have,
    since all devices update the same rows; of several messages at once instead of one after another. Of `W` only the
    links matter. The mean is kept in expectation alone, and that on regular graphs.
    """

    def mix(key: jax.Array, x: PyTree, state: MixerState, mixing_matrix: Any):
        pushed = pushes(mixing_matrix, push_targets(key, mixing_matrix))
        alike = row_stochastic(mixing_matrix, jnp.ones(mixing_matrix.shape[0]), pushed)
        return _product(alike, x), state, _along(pushed)

    return _uncompressed(mix, weights="row", keeps_mean=False)


def push_targets(key: jax.Array, mixing_matrix: Any) -> jax.Array:
    """One out-neighbour of each device, drawn uniformly, the same in either form of `W`: `[N]` int32, `N` for a device
    that has none (in this round of a changing graph)."""
    open_links, devices = links(mixing_matrix), mixing_matrix.shape[0]
    sparse = isinstance(mixing_matrix, Sparse)
    degree = jax.ops.segment_sum(open_links, mixing_matrix.senders, devices) if sparse else open_links.sum(0)
    number = jax.random.randint(key, (devices,), 0, jnp.maximum(degree, 1))
    if sparse:
        order = mixing_matrix.by_sender
        before = jnp.cumsum(degree) - degree
        found = jnp.searchsorted(jnp.cumsum(open_links[order]), before + number, side="right")
        target = jnp.append(mixing_matrix.receivers[order], devices)[found]
    else:
        target = (jnp.cumsum(open_links, axis=0) > number).argmax(0)
    return jnp.where(degree > 0, target, devices)


def server() -> Mixer:
    """All devices send `x` to a server, which sends the mean back: the uniform `W`. The graph is not used."""

    def mix(key: jax.Array, x: PyTree, state: MixerState, mixing_matrix: Any):
        mean = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf.mean(0), leaf.shape), x)
        each = jnp.ones(jax.tree.leaves(x)[0].shape[0], jnp.int32)
        return mean, state, Traffic(up={"value": each}, down={"mean": each})

    def message_bytes(x: PyTree, leading: int) -> Traffic:
        return Traffic(up={"value": stacked_bytes(x)}, down={"mean": stacked_bytes(x)})

    return Mixer(lambda x, leading: MixerState(), mix, message_bytes, weights="row")


def adaptive(forgetting: float = 0.05) -> Mixer:
    """A weighted average whose weights adapt while it runs, by the relative-variance rule of Tu and Sayed (IEEE
    CAMSAP 2011; Sayed, Adaptation, Learning, and Optimization over Networks, 2014).

    Device `n` follows how far what it hears lies from what it combined the last time, `γ²_nm ← (1 − ν) γ²_nm + ν ‖x_m −
    x_n^last‖²` (a mean over the entries mixed before), and shares `1 − W[n, n]` among its neighbours in proportion to
    `1 / γ²_nm`: those with noisy or alien soft decisions fade out, and no label is needed. Unlike in the paper its own
    weight stays `W[n, n]`: between two mixings a device moves little, and would soon hear itself alone. What a device
    receives is weighted to sum to 1, so the mean is not kept. Of a `networks.Sparse` `W` too it works on all pairs.

    Args:
      forgetting: `ν` in (0, 1].
    """

    def init(x: PyTree, leading: int) -> MixerState:
        devices = jax.tree.leaves(x)[0].shape[0]
        # Not a number: never mixed.
        last = jax.tree.map(lambda leaf: jnp.full(leaf.shape, jnp.nan, leaf.dtype), x)
        return MixerState(last, jnp.ones((devices, devices)))

    def mix(key: jax.Array, x: PyTree, state: MixerState, mixing_matrix: Any):
        sent = _along(links(mixing_matrix))
        mixing_matrix = dense(mixing_matrix)
        flat, last = flatten(x), flatten(state.rows)
        known = jnp.isfinite(last)
        last = jnp.where(known, last, 0)
        # Mean squares over the entries that n has mixed before, of all pairs at once.
        squares = (last**2).sum(1)[:, None] - 2 * _dot(last, flat.T) + _dot(known.astype(flat.dtype), (flat**2).T)
        squares = jnp.maximum(squares / jnp.maximum(known.sum(1, keepdims=True), 1), 1e-12)
        heard = links(mixing_matrix)
        seen = (heard == 1) & known.any(1, keepdims=True)
        spread = jnp.where(seen, (1 - forgetting) * state.rest + forgetting * squares, state.rest)
        weights = heard / spread
        own = jnp.diag(mixing_matrix)
        weights *= ((1 - own) / jnp.maximum(weights.sum(1), 1e-12))[:, None]
        x = _product(weights + jnp.diag(own), x)
        return x, MixerState(x, spread), sent

    return _uncompressed(mix, init, weights="row", keeps_mean=False)


def _uncompressed(mix: Callable, init: Callable = lambda x, leading: MixerState(), **truths: Any) -> Mixer:
    """A mixer that sends `x` as it is, and remembers nothing unless `init` says so."""
    return Mixer(init, mix, lambda x, leading: Traffic({"value": stacked_bytes(x)}), **truths)


def _along(links: jax.Array) -> Traffic:
    return Traffic({"value": links})


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    # A product in reduced precision would not preserve the mean.
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _product(matrix: Any, x: PyTree) -> PyTree:
    """`W x` of either form of `W`, each leaf flattened to `[N, P]`."""
    multiply = operator.matmul if isinstance(matrix, Sparse) else _dot
    return jax.tree.map(lambda leaf: by_column(multiply, matrix, leaf.reshape(len(leaf), -1)).reshape(leaf.shape), x)


def _payload(x: PyTree) -> tuple[int, ...]:
    """The shape of one device's message as a compressor sees it."""
    leaves = jax.tree.leaves(x)
    return leaves[0].shape[1:] if len(leaves) == 1 else (sum(math.prod(leaf.shape[1:]) for leaf in leaves),)


def _compress(compressor: Compressor, key: jax.Array, x: PyTree) -> PyTree:
    """Each device's message compressed with a key of its own; parameters as one vector."""
    leaves, structure = jax.tree.flatten(x)
    devices = leaves[0].shape[0]
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(devices))
    compress = jax.vmap(compressor.compress)
    if len(leaves) == 1:
        return jax.tree.unflatten(structure, [compress(keys, leaves[0])])
    return unflatten(compress(keys, flatten(x)), x)
