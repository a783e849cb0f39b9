"""Networks that change while they run: the mixing matrix of a round, inside the jitted loop.

A `Problem.mixing_matrix` is `[N, N]`; or `[T, N, N]`, gone through in a cycle; or something drawn anew each round.
"""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp


@runtime_checkable
class Drawn(Protocol):
    """A fresh graph each round; a pytree."""

    @property
    def shape(self) -> tuple[int, int]:
        """`(N, N)`."""

    def draw(self, key: jax.Array) -> jax.Array:
        """`[N, N]` doubly stochastic."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Relabeled:
    """The same graph with its devices in a random order each round, all orders alike.

    Of a perfect matching that is a uniformly random matching; of a random regular graph, a random regular graph.

    Attributes:
      mixing_matrix: `[N, N]` float32.
    """

    mixing_matrix: Any

    @property
    def shape(self) -> tuple[int, int]:
        return self.mixing_matrix.shape

    def draw(self, key: jax.Array) -> jax.Array:
        order = jax.random.permutation(key, self.mixing_matrix.shape[0])
        return jnp.asarray(self.mixing_matrix)[order[:, None], order]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ErdosRenyi:
    """Every link is there with probability `p`, drawn anew each round; Metropolis-Hastings weights.

    That neighbours tell one another their degrees, which the weights need, is not counted as traffic.

    Attributes:
      probability: `p`.
      devices: `N`.
    """

    probability: Any
    devices: int = dataclasses.field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, int]:
        return (self.devices, self.devices)

    def draw(self, key: jax.Array) -> jax.Array:
        above = jnp.triu(jax.random.bernoulli(key, self.probability, self.shape), 1)
        adjacency = (above | above.T).astype(jnp.float32)
        degree = adjacency.sum(1)
        matrix = adjacency / (1 + jnp.maximum(degree[:, None], degree))
        return matrix + jnp.diag(1 - matrix.sum(1))


def at(mixing_matrix: Any, key: jax.Array, round: jax.Array) -> jax.Array:
    """`W_t [N, N]`: of a fixed network itself, of a cycle the one whose turn it is, else drawn with the key."""
    if isinstance(mixing_matrix, Drawn):
        return mixing_matrix.draw(key)
    if mixing_matrix.ndim == 2:
        return mixing_matrix
    return mixing_matrix[round % mixing_matrix.shape[0]]
