"""Mixing matrices in two forms with the same methods: a dense array, and the links of the graph.

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

# Slots of a row that are written out, for XLA to fuse into one loop without temporaries; more are taken by turns.
_UNROLLED = 32


class MixingMatrix(Network):
    """`W` of one round, or of every round: a network that stays as it is."""

    @abc.abstractmethod
    def multiply(self, x: jax.Array) -> jax.Array:
        """`W x` for `x` `[N, P]` on one shard."""

    @property
    @abc.abstractmethod
    def own_weights(self) -> jax.Array:
        """`[N]`, the diagonal: the weights of the devices to themselves."""

    @abc.abstractmethod
    def links(self) -> jax.Array:
        """The links, by link int32: 1 where the receiver hears of the sender. No device has a link to itself."""

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
        """`W x` for a stacked pytree, each leaf flattened to `[N, P]`."""

        def of_leaf(leaf: jax.Array) -> jax.Array:
            flat = leaf.reshape(len(leaf), -1)
            return by_column(lambda matrix, part: matrix.multiply(part), self, flat).reshape(leaf.shape)

        return jax.tree.map(of_leaf, x)

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
        return jnp.matmul(self.weights, x, precision=jax.lax.Precision.HIGHEST)

    def links(self) -> jax.Array:
        return ((self.weights != 0) & ~jnp.eye(self.devices, dtype=bool)).astype(jnp.int32)

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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Links(MixingMatrix):
    """A mixing matrix by its `E` directed links, sorted by receiver, then sender; made by `from_matrices`.

    A product gathers what each device hears, slot by slot: its cost grows with the links. Devices are grouped by how
    many others they hear of, so that a hub among many (a star) does not widen all rows; a regular graph has one group.

    Attributes:
      own: `[N]` weights of the devices to themselves; `[T, N]` where a cycle is stacked.
      weights: `[E]` of the links; `[T, E]` for a cycle, on the union of its graphs, 0 where a round lacks the link.
      senders: `[E]` int32.
      receivers: `[E]` int32.
      by_sender: `[E]` int32, the order of the links sorted by sender, then receiver.
      slots: for each group of devices `[n, d]` int32, the numbers of their links, padded with `E`.
      place: `[N]` int32, where a device stands among the groups joined; `None` if there is one.
    """

    own: Any
    weights: Any
    senders: Any
    receivers: Any
    by_sender: Any
    slots: tuple
    place: Any

    @property
    def devices(self) -> int:
        return self.own.shape[-1]

    @property
    def own_weights(self) -> jax.Array:
        return self.own

    def multiply(self, x: jax.Array) -> jax.Array:
        def hear(slots: jax.Array) -> jax.Array:
            senders = jnp.take(self.senders, slots, mode="clip")  # padding takes any, at weight 0
            weights = jnp.take(self.weights, slots, mode="fill", fill_value=0)

            def add(total, columns):
                for sender, weight in zip(*columns, strict=True):
                    total = total + weight[:, None] * x[sender]
                return total, None

            zeros = jnp.zeros((slots.shape[0], x.shape[1]), jnp.result_type(weights, x))
            if slots.shape[1] <= _UNROLLED:
                return add(zeros, (senders.T, weights.T))[0]
            turns = jax.tree.map(lambda a: a.T.reshape(-1, _UNROLLED, slots.shape[0]), (senders, weights))
            return jax.lax.scan(add, zeros, turns)[0]

        groups = [hear(slots) for slots in self.slots]
        heard = groups[0] if self.place is None else jnp.concatenate(groups)[self.place]
        return self.own[:, None] * x + heard

    def links(self) -> jax.Array:
        return (self.weights != 0).astype(jnp.int32)

    def pushes(self, targets: jax.Array) -> jax.Array:
        return (self.receivers == targets[self.senders]).astype(jnp.int32)

    def push_targets(self, key: jax.Array) -> jax.Array:
        links = self.links()
        degree = jax.ops.segment_sum(links, self.senders, self.devices)
        number = jax.random.randint(key, (self.devices,), 0, jnp.maximum(degree, 1))
        before = jnp.cumsum(degree) - degree
        found = jnp.searchsorted(jnp.cumsum(links[self.by_sender]), before + number, side="right")
        target = jnp.append(self.receivers[self.by_sender], self.devices)[found]
        return jnp.where(degree > 0, target, self.devices)

    def reaches(self, targets: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(self.links() * self.pushes(targets), self.senders, self.devices) > 0

    def _sums(self, weights: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(weights, self.receivers, self.devices, indices_are_sorted=True)

    def weighted(self, own: jax.Array, weights: jax.Array) -> "Links":
        total = own + self._sums(weights)
        return dataclasses.replace(self, own=own / total, weights=weights / total[self.receivers])

    def thinned(self, kept: jax.Array) -> "Links":
        lost = jnp.where(kept.astype(bool), 0, self.weights)
        return dataclasses.replace(self, own=self.own + self._sums(lost), weights=self.weights - lost)

    def dense(self) -> jax.Array:
        return jnp.diag(self.own).at[self.receivers, self.senders].set(self.weights)

    def take(self, turn: jax.Array) -> "Links":
        own, weights = jnp.asarray(self.own), jnp.asarray(self.weights)
        return dataclasses.replace(self, own=own[turn], weights=weights[turn])

    def sample_matrices(self) -> list[scipy.sparse.csr_array]:
        own, weights = np.atleast_2d(np.asarray(self.own, np.float64), np.asarray(self.weights, np.float64))
        diagonal = np.arange(self.devices)
        places = np.append(self.receivers, diagonal), np.append(self.senders, diagonal)
        shape = (self.devices, self.devices)
        return [
            scipy.sparse.csr_array((np.append(*values), places), shape=shape)
            for values in zip(weights, own, strict=True)
        ]

    def sent_by_device(self, counts: np.ndarray) -> np.ndarray:
        return self._count(self.senders, counts)

    def received_by_device(self, counts: np.ndarray) -> np.ndarray:
        return self._count(self.receivers, counts)

    def _count(self, devices: Any, counts: np.ndarray) -> np.ndarray:
        sums = np.zeros(self.devices, np.int64)  # `np.bincount` would count in floating point
        np.add.at(sums, np.asarray(devices), counts)
        return sums

    def ends(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        (used,) = np.nonzero(counts)
        return np.asarray(self.receivers)[used], np.asarray(self.senders)[used]


def from_matrices(*matrices: Any) -> Links:
    """A mixing matrix, or the several of a cycle stacked, by links.

    Args:
      matrices: each `[N, N]`, an array or of `scipy.sparse`.

    Returns:
      NumPy arrays, weights in float64.
    """
    rounds = [scipy.sparse.coo_array(matrix) for matrix in matrices]
    devices = rounds[0].shape[0]

    def links(matrix: scipy.sparse.coo_array) -> tuple[np.ndarray, np.ndarray]:
        linked = matrix.row != matrix.col
        return matrix.row[linked].astype(np.int64) * devices + matrix.col[linked], matrix.data[linked]

    found = [links(matrix) for matrix in rounds]
    union = np.unique(np.concatenate([numbers for numbers, _ in found]))
    weights, own = np.zeros((len(rounds), len(union))), np.array([matrix.diagonal() for matrix in rounds])
    for row, (numbers, values) in zip(weights, found, strict=True):
        row[np.searchsorted(union, numbers)] = values
    receivers, senders = np.divmod(union, devices)
    slots, place = _slots(receivers, devices)
    cycle = len(rounds) > 1
    return Links(
        own=own if cycle else own[0],
        weights=weights if cycle else weights[0],
        senders=senders.astype(np.int32),
        receivers=receivers.astype(np.int32),
        by_sender=np.lexsort((receivers, senders)).astype(np.int32),
        slots=slots,
        place=place,
    )


def _slots(receivers: np.ndarray, devices: int) -> tuple[tuple[np.ndarray, ...], np.ndarray | None]:
    """The numbers of the links of each device, in groups of devices with about as many; see `Links`."""
    degree = np.bincount(receivers, minlength=devices)
    first = np.cumsum(degree) - degree
    size = np.ceil(np.log2(np.maximum(degree, 1)) / 2)  # groups of powers of four: fewer compile and run quicker
    slots = []
    for group in np.unique(size):
        rows = np.flatnonzero(size == group)
        width = degree[rows].max()
        column = np.arange(width if width <= _UNROLLED else -(-width // _UNROLLED) * _UNROLLED)
        slots.append(np.where(column < degree[rows, None], first[rows, None] + column, len(receivers)).astype(np.int32))
    place = np.argsort(np.argsort(size, kind="stable")).astype(np.int32) if len(slots) > 1 else None
    return tuple(slots), place
