"""Networks that change from round to round."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from ddjax.errors import InputError
from ddjax.networks.matrices import Dense, MixingMatrix
from ddjax.networks.network import Network, NetworkRound


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cycle(Network):
    """Mixing matrices by turns.

    Attributes:
      matrices: stacked, of either form.
      length: `T`.
    """

    matrices: MixingMatrix
    length: int = dataclasses.field(metadata={"static": True})

    changes = True

    @property
    def devices(self) -> int:
        return self.matrices.devices

    def at_round(self, key: jax.Array, round: jax.Array) -> NetworkRound:
        matrix = self.matrices.take(round % self.length)
        return NetworkRound(matrix, matrix)

    def sample_matrices(self) -> list[scipy.sparse.csr_array]:
        return self.matrices.sample_matrices()

    def sent_by_device(self, counts: np.ndarray) -> np.ndarray:
        return self.matrices.sent_by_device(counts)

    def received_by_device(self, counts: np.ndarray) -> np.ndarray:
        return self.matrices.received_by_device(counts)

    def ends(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.matrices.ends(counts)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Relabeled(Network):
    """A graph whose devices are put in a random order each round, all orders alike.

    From a perfect matching this makes a uniformly random matching, from a random regular graph a random regular graph.

    Attributes:
      weights: `[N, N]`, doubly stochastic.
    """

    weights: Any

    changes = draws = True

    @property
    def devices(self) -> int:
        return self.weights.shape[0]

    def at_round(self, key: jax.Array, round: jax.Array) -> NetworkRound:
        order = jax.random.permutation(key, self.weights.shape[0])
        matrix = Dense(jnp.asarray(self.weights)[order[:, None], order])
        return NetworkRound(matrix, matrix)

    def sample_matrices(self) -> list[scipy.sparse.csr_array]:
        return Dense(self.weights).sample_matrices()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ErdosRenyi(Network):
    """Every link is there with probability `p`, drawn anew each round; Metropolis-Hastings weights.

    That neighbours tell one another their degrees, which the weights need, is not counted as traffic.

    Attributes:
      probability: `p`.
      size: `N`.
    """

    probability: Any
    size: int = dataclasses.field(metadata={"static": True})

    changes = draws = True

    @property
    def devices(self) -> int:
        return self.size

    def draw(self, key: jax.Array) -> jax.Array:
        """`[N, N]`, doubly stochastic."""
        shape = (self.devices, self.devices)
        above = jnp.triu(jax.random.bernoulli(key, self.probability, shape), 1)
        adjacency = (above | above.T).astype(float)
        degree = adjacency.sum(1)
        matrix = adjacency / (1 + jnp.maximum(degree[:, None], degree))
        return matrix + jnp.diag(1 - matrix.sum(1))

    def at_round(self, key: jax.Array, round: jax.Array) -> NetworkRound:
        matrix = Dense(self.draw(key))
        return NetworkRound(matrix, matrix)

    def sample_matrices(self, seed: int = 0) -> list[scipy.sparse.csr_array]:
        draws = int(np.clip(2**22 // self.devices**2, 4, 64))  # at most 32 MiB
        keys = jax.random.split(jax.random.key(seed), draws)
        return [scipy.sparse.csr_array(matrix) for matrix in np.asarray(jax.lax.map(self.draw, keys), np.float64)]


def as_network(network: Any) -> Network:
    """A network in the working precision, as arrays of JAX.

    Args:
      network: a `Network`, a mixing matrix `[N, N]`, or the matrices `[T, N, N]` of a cycle.

    Raises:
      InputError: something else, or an array of another shape.
    """
    if not isinstance(network, Network):
        try:
            stack = jnp.asarray(network, float)
        except (TypeError, ValueError):
            raise InputError(
                f"a network is a networks.Network, such as build_topology(…).network, or a mixing matrix; got a "
                f"{type(network).__name__}"
            ) from None
        if stack.ndim not in (2, 3) or stack.shape[-1] != stack.shape[-2]:
            raise InputError(
                f"a mixing matrix is square, [N, N], or [T, N, N] for a cycle; got shape {list(stack.shape)}"
            )
        network = Cycle(Dense(stack), len(stack)) if stack.ndim == 3 else Dense(stack)

    def cast(leaf: Any) -> jax.Array:
        return jnp.asarray(leaf, jnp.int32 if jnp.issubdtype(jnp.result_type(leaf), jnp.integer) else float)

    return jax.tree.map(cast, network)
