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
    """Network that repeats a fixed sequence of mixing matrices.

    Attributes:
      matrices: the `T` matrices of the cycle, stacked in a `Dense` or a `Links`.
      length: length `T` of the cycle.
    """

    matrices: MixingMatrix
    length: int = dataclasses.field(metadata={"static": True})

    changes = True

    @property
    def devices(self) -> int:
        """Number of devices `N`."""
        return self.matrices.devices

    def at_round(self, key: jax.Array, round: jax.Array) -> NetworkRound:
        """Return the matrix of the cycle that is used in this round."""
        matrix = self.matrices.take(round % self.length)
        return NetworkRound(matrix, matrix)

    def sample_matrices(self) -> list[scipy.sparse.csr_array]:
        """Return the matrices of the cycle on the host."""
        return self.matrices.sample_matrices()

    def sent_by_device(self, counts: np.ndarray) -> np.ndarray:
        """Sum the counts of the links from each device, `[N]`."""
        return self.matrices.sent_by_device(counts)

    def received_by_device(self, counts: np.ndarray) -> np.ndarray:
        """Sum the counts of the links to each device, `[N]`."""
        return self.matrices.received_by_device(counts)

    def ends(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the receivers and senders of the links whose counts are not 0."""
        return self.matrices.ends(counts)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Relabeled(Network):
    """Graph whose devices are permuted uniformly at random in each round.

    A perfect matching becomes a uniformly random matching, and a random regular graph becomes another random regular
    graph.

    Attributes:
      weights: mixing matrix `[N, N]`, doubly stochastic.
    """

    weights: Any

    changes = draws = True

    @property
    def devices(self) -> int:
        """Number of devices `N`."""
        return self.weights.shape[0]

    def at_round(self, key: jax.Array, round: jax.Array) -> NetworkRound:
        """Draw a permutation of the devices, and return the matrix with rows and columns in that order."""
        order = jax.random.permutation(key, self.weights.shape[0])
        matrix = Dense(jnp.asarray(self.weights)[order[:, None], order])
        return NetworkRound(matrix, matrix)

    def sample_matrices(self) -> list[scipy.sparse.csr_array]:
        """Return the matrix before it is permuted, on the host."""
        return Dense(self.weights).sample_matrices()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ErdosRenyi(Network):
    """Random graph that is drawn anew in each round, with Metropolis-Hastings weights.

    Each link exists with probability `p`. The weights depend on the degrees of neighbours; messages that announce
    degrees are not counted as traffic.

    Attributes:
      probability: probability `p` of a link.
      size: number of devices `N`.
    """

    probability: Any
    size: int = dataclasses.field(metadata={"static": True})

    changes = draws = True

    @property
    def devices(self) -> int:
        """Number of devices `N`."""
        return self.size

    def draw(self, key: jax.Array) -> jax.Array:
        """Draw a doubly stochastic matrix `[N, N]`."""
        shape = (self.devices, self.devices)
        above = jnp.triu(jax.random.bernoulli(key, self.probability, shape), 1)
        adjacency = (above | above.T).astype(float)
        degree = adjacency.sum(1)
        matrix = adjacency / (1 + jnp.maximum(degree[:, None], degree))
        return matrix + jnp.diag(1 - matrix.sum(1))

    def at_round(self, key: jax.Array, round: jax.Array) -> NetworkRound:
        """Draw the matrix of one round."""
        matrix = Dense(self.draw(key))
        return NetworkRound(matrix, matrix)

    def sample_matrices(self, seed: int = 0) -> list[scipy.sparse.csr_array]:
        """Draw a few matrices for an estimate of the spectral gap, and return them on the host."""
        draws = int(np.clip(2**22 // self.devices**2, 4, 64))  # at most 32 MiB
        keys = jax.random.split(jax.random.key(seed), draws)
        return [scipy.sparse.csr_array(matrix) for matrix in np.asarray(jax.lax.map(self.draw, keys), np.float64)]


def as_network(network: Any) -> Network:
    """Convert a network to JAX arrays in the working precision.

    Args:
      network: a `Network`, a mixing matrix `[N, N]`, or the matrices `[T, N, N]` of a cycle.

    Raises:
      InputError: if `network` has another type or shape.

    Examples:
      >>> from ddjax.networks import as_network
      >>> as_network([[0.5, 0.5], [0.5, 0.5]]).devices
      2
      >>> as_network([[[0, 1], [1, 0]], [[1, 0], [0, 1]]]).length  # two matrices in turn
      2
    """
    if not isinstance(network, Network):
        try:
            stack = jnp.asarray(network, float)
        except (TypeError, ValueError):
            raise InputError(
                "a network must be a networks.Network, such as build_topology(…).network, or a mixing matrix; got a "
                f"{type(network).__name__}"
            ) from None
        if stack.ndim not in (2, 3) or stack.shape[-1] != stack.shape[-2]:
            raise InputError(
                f"a mixing matrix must be square: [N, N], or [T, N, N] for a cycle; got shape {list(stack.shape)}"
            )
        network = Cycle(Dense(stack), len(stack)) if stack.ndim == 3 else Dense(stack)

    def cast(leaf: Any) -> jax.Array:
        return jnp.asarray(leaf, jnp.int32 if jnp.issubdtype(jnp.result_type(leaf), jnp.integer) else float)

    return jax.tree.map(cast, network)
