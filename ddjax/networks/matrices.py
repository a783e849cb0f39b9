"""Mixing matrices in two forms with the same methods: a dense array, and the links of the graph (`links.py`).

`W[n, m]` is the weight that device `n` gives to what it receives from `m`. *By link* means an array of one entry per
directed link: `[N, N]` like `W` in the dense form, `[E]` in the other.
"""

import abc
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from ddjax.networks.network import Network, NetworkRound
from ddjax.sharding import by_column
from ddjax.types import PyTree


class MixingMatrix(Network):
    """`W` of one round, or of every round: a network that stays as it is."""

    @abc.abstractmethod
    def multiply(self, x: jax.Array) -> jax.Array:
        """`W x` for `x` `[N, …]` on one shard."""

    @property
    @abc.abstractmethod
    def own_weights(self) -> jax.Array:
        """`[N]`, the diagonal: the weights of the devices to themselves."""

    @abc.abstractmethod
    def links(self) -> jax.Array:
        """The links, by link int32: 1 where the receiver hears of the sender. No device has a link to itself."""

    @abc.abstractmethod
    def endpoints(self, count: int) -> tuple[jax.Array, jax.Array]:
        """Receivers and senders `[count]` int32 of all `count` links, sorted by receiver, then sender."""

    @abc.abstractmethod
    def pushes(self, targets: jax.Array) -> jax.Array:
        """The messages, by link int32: 1 where a device sends to its target. `targets` is `[N]`, with `N` for none."""

    @abc.abstractmethod
    def push_targets(self, key: jax.Array) -> jax.Array:
        """One out-neighbour of each device, drawn uniformly: `[N]` int32, `N` for a device that has none."""

    @abc.abstractmethod
    def reaches(self, targets: jax.Array) -> jax.Array:
        """`[N]` bool: whether a device has a link to its target."""

    @abc.abstractmethod
    def weighted(self, own: jax.Array, weights: jax.Array) -> "MixingMatrix":
        """A matrix of the same form with weights `own` `[N]` and `weights` by link, divided by their sum in a row."""

    @abc.abstractmethod
    def thinned(self, kept: jax.Array) -> "MixingMatrix":
        """The matrix with the links where `kept`, by link, is 0 taken out. A receiver gives their weight to itself, so
        rows still sum to 1."""

    @abc.abstractmethod
    def dense(self) -> jax.Array:
        """`W` as `[N, N]`."""

    @abc.abstractmethod
    def take(self, turn: jax.Array) -> "MixingMatrix":
        """Number `turn` of the matrices of a cycle, which this holds stacked."""

    def product(self, x: PyTree) -> PyTree:
        """`W x` for a stacked pytree."""
        return jax.tree.map(self.product_with, x)

    def product_with(self, leaf: jax.Array) -> jax.Array:
        """`W x` for `x` `[N, …]`."""
        return by_column(lambda matrix, part: matrix.multiply(part), self, leaf)

    def at_round(self, key: jax.Array, round: jax.Array) -> NetworkRound:
        return NetworkRound(self, self)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Dense(MixingMatrix):
    """A mixing matrix as an array.

    Attributes:
      weights: `[N, N]`; `[T, N, N]` where a cycle is stacked.
    """

    weights: Any

    @property
    def devices(self) -> int:
        return self.weights.shape[-1]

    @property
    def own_weights(self) -> jax.Array:
        return jnp.diag(self.weights)

    def multiply(self, x: jax.Array) -> jax.Array:
        # A product in reduced precision would not preserve the mean.
        return jnp.tensordot(self.weights, x, 1, precision=jax.lax.Precision.HIGHEST)

    def links(self) -> jax.Array:
        return ((self.weights != 0) & ~jnp.eye(self.devices, dtype=bool)).astype(jnp.int32)

    def endpoints(self, count: int) -> tuple[jax.Array, jax.Array]:
        receivers, senders = jnp.nonzero(self.links(), size=count)
        return receivers.astype(jnp.int32), senders.astype(jnp.int32)

    def pushes(self, targets: jax.Array) -> jax.Array:
        return jax.nn.one_hot(targets, self.devices, axis=0, dtype=jnp.int32)

    def push_targets(self, key: jax.Array) -> jax.Array:
        links = self.links()
        degree = links.sum(0)
        number = jax.random.randint(key, (self.devices,), 0, jnp.maximum(degree, 1))
        target = (jnp.cumsum(links, axis=0) > number).argmax(0)
        return jnp.where(degree > 0, target, self.devices)

    def reaches(self, targets: jax.Array) -> jax.Array:
        return (self.links() * self.pushes(targets)).sum(0) > 0

    def weighted(self, own: jax.Array, weights: jax.Array) -> "Dense":
        rows = weights + jnp.diag(own)
        return Dense(rows / rows.sum(1, keepdims=True))

    def thinned(self, kept: jax.Array) -> "Dense":
        lost = jnp.where(kept.astype(bool) | jnp.eye(self.devices, dtype=bool), 0, self.weights)
        return Dense(self.weights - lost + jnp.diag(lost.sum(1)))

    def dense(self) -> jax.Array:
        return self.weights

    def take(self, turn: jax.Array) -> "Dense":
        return Dense(self.weights[turn])

    def sample_matrices(self) -> list[scipy.sparse.csr_array]:
        stack = np.asarray(self.weights, np.float64).reshape(-1, self.devices, self.devices)
        return [scipy.sparse.csr_array(matrix) for matrix in stack]
