"""Mixing matrices in two forms with the same methods: a dense array, or the links of the graph (`links.py`).

`W[n, m]` is the weight that device `n` gives to what it receives from `m`. An array *by link* has one entry per
directed link: `[N, N]`, like `W`, in the dense form, and `[E]` in the other form.
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
    """Mixing matrix `W` of one round, or of every round: a network that does not change."""

    @abc.abstractmethod
    def multiply(self, x: jax.Array) -> jax.Array:
        """Multiply `W` by `x` `[N, …]`, which contains the columns of one shard."""

    @property
    @abc.abstractmethod
    def own_weights(self) -> jax.Array:
        """Diagonal `[N]`: the weights that devices give themselves."""

    @abc.abstractmethod
    def links(self) -> jax.Array:
        """Mark with 1 the links whose weight is not 0, by link, int32; no device has a link to itself."""

    @abc.abstractmethod
    def endpoints(self, count: int) -> tuple[jax.Array, jax.Array]:
        """Return the receivers and senders `[count]` int32 of all `count` links, sorted by receiver, then sender."""

    @abc.abstractmethod
    def pushes(self, targets: jax.Array) -> jax.Array:
        """Mark with 1 the links on which devices send to their targets, by link, int32.

        Args:
          targets: `[N]` target of each device; `N` for a device without a target.
        """

    @abc.abstractmethod
    def push_targets(self, key: jax.Array) -> jax.Array:
        """Draw one out-neighbour of each device uniformly, `[N]` int32; `N` for a device without out-neighbours."""

    @abc.abstractmethod
    def reaches(self, targets: jax.Array) -> jax.Array:
        """Mark the devices that have a link to their target, `[N]` bool."""

    @abc.abstractmethod
    def weighted(self, own: jax.Array, weights: jax.Array) -> "MixingMatrix":
        """Return the matrix with the diagonal `own` `[N]` and `weights` on the links, each row divided by its sum."""

    @abc.abstractmethod
    def thinned(self, kept: jax.Array) -> "MixingMatrix":
        """Return the matrix without the links for which `kept` (by link) is 0.

        A receiver adds the weights of these links to its own weight, so rows still sum to 1.
        """

    @abc.abstractmethod
    def dense(self) -> jax.Array:
        """Return `W` as an array `[N, N]`."""

    @abc.abstractmethod
    def take(self, turn: jax.Array) -> "MixingMatrix":
        """Take matrix number `turn` of a stacked cycle."""

    def product(self, x: PyTree) -> PyTree:
        """Multiply `W` by a stacked pytree."""
        return jax.tree.map(self.product_with, x)

    def product_with(self, leaf: jax.Array) -> jax.Array:
        """Multiply `W` by an array `[N, …]`."""
        return by_column(lambda matrix, part: matrix.multiply(part), self, leaf)

    def at_round(self, key: jax.Array, round: jax.Array) -> NetworkRound:
        """Return this matrix for every round."""
        return NetworkRound(self, self)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Dense(MixingMatrix):
    """Mixing matrix stored as an array.

    Attributes:
      weights: `[N, N]`; `[T, N, N]` for a stacked cycle.
    """

    weights: Any

    @property
    def devices(self) -> int:
        """Number of devices `N`."""
        return self.weights.shape[-1]

    @property
    def own_weights(self) -> jax.Array:
        """Diagonal `[N]`."""
        return jnp.diag(self.weights)

    def multiply(self, x: jax.Array) -> jax.Array:
        """Multiply `W` by `x` `[N, …]` on one shard."""
        # A product in reduced precision would not preserve the mean.
        return jnp.tensordot(self.weights, x, 1, precision=jax.lax.Precision.HIGHEST)

    def links(self) -> jax.Array:
        """Mark the entries off the diagonal that are not 0, `[N, N]` int32."""
        return ((self.weights != 0) & ~jnp.eye(self.devices, dtype=bool)).astype(jnp.int32)

    def endpoints(self, count: int) -> tuple[jax.Array, jax.Array]:
        """Return the receivers and senders `[count]` of the links."""
        receivers, senders = jnp.nonzero(self.links(), size=count)
        return receivers.astype(jnp.int32), senders.astype(jnp.int32)

    def pushes(self, targets: jax.Array) -> jax.Array:
        """Mark the entries from a device to its target, `[N, N]` int32."""
        return jax.nn.one_hot(targets, self.devices, axis=0, dtype=jnp.int32)

    def push_targets(self, key: jax.Array) -> jax.Array:
        """Draw one out-neighbour of each device, `[N]` int32; `N` for a device without out-neighbours."""
        links = self.links()
        degree = links.sum(0)
        number = jax.random.randint(key, (self.devices,), 0, jnp.maximum(degree, 1))
        target = (jnp.cumsum(links, axis=0) > number).argmax(0)
        return jnp.where(degree > 0, target, self.devices)

    def reaches(self, targets: jax.Array) -> jax.Array:
        """Mark the devices that have a link to their target, `[N]` bool."""
        return (self.links() * self.pushes(targets)).sum(0) > 0

    def weighted(self, own: jax.Array, weights: jax.Array) -> "Dense":
        """Replace the weights, and divide each row by its sum."""
        rows = weights + jnp.diag(own)
        return Dense(rows / rows.sum(1, keepdims=True))

    def thinned(self, kept: jax.Array) -> "Dense":
        """Remove the links where `kept` is 0; receivers add the lost weight to their own."""
        lost = jnp.where(kept.astype(bool) | jnp.eye(self.devices, dtype=bool), 0, self.weights)
        return Dense(self.weights - lost + jnp.diag(lost.sum(1)))

    def dense(self) -> jax.Array:
        """Return the array `[N, N]`."""
        return self.weights

    def take(self, turn: jax.Array) -> "Dense":
        """Take matrix number `turn` of a stacked cycle."""
        return Dense(self.weights[turn])

    def sample_matrices(self) -> list[scipy.sparse.csr_array]:
        """Return the matrix, or the matrices of the cycle, on the host."""
        stack = np.asarray(self.weights, np.float64).reshape(-1, self.devices, self.devices)
        return [scipy.sparse.csr_array(matrix) for matrix in stack]
