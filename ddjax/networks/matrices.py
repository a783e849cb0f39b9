"""The forms of a mixing matrix, and that of a round, inside the jitted loop.

A `Problem.network` is `[N, N]`, or `[T, N, N]` gone through in a cycle; either of these as `Sparse`; or something
drawn anew each round. Functions here that take a `W` take that of one round, `[N, N]` or `Sparse`; *by link* means
`[N, N]` like `W`, or of a `Sparse` one `[E]` like its weights.
"""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

# Slots of a row that are written out, for XLA to fuse into one loop without temporaries; more are taken by turns.
_UNROLLED = 32


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
      mixing_matrix: `[N, N]`.
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
        adjacency = (above | above.T).astype(float)
        degree = adjacency.sum(1)
        matrix = adjacency / (1 + jnp.maximum(degree[:, None], degree))
        return matrix + jnp.diag(1 - matrix.sum(1))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sparse:
    """A mixing matrix by its `E` directed links, sorted by receiver, then sender; made by `sparse`.

    A product gathers what each device hears, slot by slot: its cost grows with the links. Devices are grouped by how
    many they hear, so that a hub among many (a star) does not widen all rows; of a regular graph there is one group.

    Attributes:
      own: `[N]` weights of the devices to themselves, the diagonal; of a cycle `[T, N]`.
      weights: `[E]` of the links; of a cycle `[T, E]` on the union of its graphs, 0 where a round lacks the link.
      senders: `[E]` int32.
      receivers: `[E]` int32.
      by_sender: `[E]` int32, the order of the links sorted by sender, then receiver.
      slots: of each group of devices `[n, d]` int32, the numbers of their links, padded with `E`.
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
    def shape(self) -> tuple[int, ...]:
        """`(N, N)`, of a cycle `(T, N, N)`."""
        return (*self.own.shape, self.own.shape[-1])

    def __matmul__(self, x: jax.Array) -> jax.Array:
        """`W x` for `x` `[N, P]`."""

        def hear(slots: jax.Array) -> jax.Array:
            senders = jnp.take(self.senders, slots, mode="clip")  # of padding any, at weight 0
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


def sparse(*matrices: Any) -> Sparse:
    """A mixing matrix, or the several of a cycle, as `Sparse` (of NumPy arrays, weights in float64).

    Args:
      matrices: each `[N, N]`, an array or of `scipy.sparse`.
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
    degree = np.bincount(receivers, minlength=devices)
    first = np.cumsum(degree) - degree
    size = np.ceil(np.log2(np.maximum(degree, 1)) / 2)  # groups of powers of four: fewer compile and run quicker
    slots = []
    for group in np.unique(size):
        rows = np.flatnonzero(size == group)
        width = degree[rows].max()
        column = np.arange(width if width <= _UNROLLED else -(-width // _UNROLLED) * _UNROLLED)
        slots.append(np.where(column < degree[rows, None], first[rows, None] + column, len(union)).astype(np.int32))
    cycle = len(rounds) > 1
    return Sparse(
        own=own if cycle else own[0],
        weights=weights if cycle else weights[0],
        senders=senders.astype(np.int32),
        receivers=receivers.astype(np.int32),
        by_sender=np.lexsort((receivers, senders)).astype(np.int32),
        slots=tuple(slots),
        place=np.argsort(np.argsort(size, kind="stable")).astype(np.int32) if len(slots) > 1 else None,
    )


def at(mixing_matrix: Any, key: jax.Array, round: jax.Array) -> Any:
    """`W_t`: of a fixed network itself, of a cycle the one whose turn it is, else drawn with the key."""
    if isinstance(mixing_matrix, Drawn):
        return mixing_matrix.draw(key)
    if len(mixing_matrix.shape) == 2:
        return mixing_matrix
    turn = round % mixing_matrix.shape[0]
    if isinstance(mixing_matrix, Sparse):
        own, weights = jnp.asarray(mixing_matrix.own), jnp.asarray(mixing_matrix.weights)
        return dataclasses.replace(mixing_matrix, own=own[turn], weights=weights[turn])
    return mixing_matrix[turn]


def dense(matrix: Any) -> jax.Array:
    """`W` as `[N, N]`."""
    if not isinstance(matrix, Sparse):
        return matrix
    return jnp.diag(matrix.own).at[matrix.receivers, matrix.senders].set(matrix.weights)


def links(matrix: Any) -> jax.Array:
    """By link int32, 1 where the receiver (the row) hears of the sender (the column); none to itself."""
    if isinstance(matrix, Sparse):
        return (matrix.weights != 0).astype(jnp.int32)
    return ((matrix != 0) & ~jnp.eye(matrix.shape[0], dtype=bool)).astype(jnp.int32)


def pushes(matrix: Any, targets: jax.Array) -> jax.Array:
    """By link int32, 1 where a device sends to its target; `targets` is `[N]`, `N` for none."""
    if isinstance(matrix, Sparse):
        return (matrix.receivers == targets[matrix.senders]).astype(jnp.int32)
    return jax.nn.one_hot(targets, matrix.shape[0], axis=0, dtype=jnp.int32)


def row_stochastic(matrix: Any, own: jax.Array, weights: jax.Array) -> Any:
    """A matrix of the form of `W` with these weights, `[N]` of the devices to themselves and by link, over their sum
    in a row."""
    if isinstance(matrix, Sparse):
        total = own + jax.ops.segment_sum(weights, matrix.receivers, matrix.shape[0], indices_are_sorted=True)
        return dataclasses.replace(matrix, own=own / total, weights=weights / total[matrix.receivers])
    rows = weights + jnp.diag(own)
    return rows / rows.sum(1, keepdims=True)
