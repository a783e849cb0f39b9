"""Mixing matrices stored by the links of the graph."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from ddjax import forms, sharding
from ddjax.errors import InputError
from ddjax.networks.matrices import Dense, MixingMatrix
from ddjax.sharding import by_column
from ddjax.stacked import expand

# A loop over at most this many slots per device is unrolled, so that XLA fuses its steps into one loop without
# temporaries. A longer loop becomes a scan over blocks of this many slots.
_UNROLLED = 32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Links(MixingMatrix):
    """Mixing matrix stored by its `E` directed links, sorted by receiver, then sender; see `from_matrices`.

    A product adds what each device hears, slot by slot (slot `j` contains the `j`-th link to each device), so its cost
    grows with the number of links. Devices are grouped by the number of their in-neighbours, so that a hub (as in a
    star) does not add padding for all devices; a regular graph has one group.

    Attributes:
      own: `[N]` weights that devices give themselves; `[T, N]` for a stacked cycle.
      weights: `[E]` weights of the links. For a cycle, `[T, E]`, where the links are those of all its graphs; the
        weight is 0 in a round without the link.
      senders: `[E]` int32, the sender of each link.
      receivers: `[E]` int32, the receiver of each link.
      by_sender: `[E]` int32, the permutation that sorts the links by sender, then receiver.
      slots: for each group of devices, the numbers of their links, `[n, d]` int32, padded with `E`.
      place: `[N]` int32, position of each device in the concatenated groups; `None` if there is only one group.
      by_hop: `[N, H]` int32; for each device `n` and each hop `h`, the number of the link from device `n + h` to
        device `n`; `None` if the graph is not circulant.
      hops: for a circulant graph, the `H` numbers `h` such that every device `n` hears device `n + h` (mod `N`), where
        `|h| ≤ N/2`; otherwise empty.
      form: form in which products are computed, as in `forms.mixing_product`; empty for the fastest form.
    """

    own: Any
    weights: Any
    senders: Any
    receivers: Any
    by_sender: Any
    slots: tuple
    place: Any
    by_hop: Any = None
    hops: tuple[int, ...] = dataclasses.field(default=(), metadata={"static": True})
    form: str = dataclasses.field(default="", metadata={"static": True})

    @property
    def devices(self) -> int:
        """Number of devices `N`."""
        return self.own.shape[-1]

    @property
    def own_weights(self) -> jax.Array:
        """Weights `[N]` that devices give themselves."""
        return self.own

    def product_with(self, leaf: jax.Array) -> jax.Array:
        """Multiply `W` by an array `[N, …]`, in the form that `picked` names."""
        if (form := self.picked(leaf)) == "dense":
            return Dense(self.dense()).product_with(leaf)
        if form == "gather":
            return super().product_with(leaf)
        (before, after), shards = self._reach, sharding.shard_count()
        apart = shards > 1 and (self.devices % shards or before + after > 2 * self.devices * (shards - 1) / shards**2)
        if apart:  # a shard would fetch more rows than an exchange of columns moves
            return by_column(lambda matrix, x: matrix.shift(x), self, leaf)
        weights = self.weights[self.by_hop]

        def here(nothing: tuple, x: jax.Array, own: jax.Array, weights: jax.Array) -> jax.Array:
            return self._sum_of_hops(sharding.extended(x, before, after), x, own, weights)

        return sharding.by_device(here, (), leaf, self.own, weights)

    def picked(self, leaf: Any) -> str:
        """Name the form of a product with an array that has the shape of `leaf`, `[N, …]`, on the ambient mesh."""
        return self.form or forms.mixing_product(
            sharding.platform(),
            self.devices,
            len(self.senders) / self.devices,
            math.prod(leaf.shape[1:]),
            sharding.shard_count(),
            bool(self.hops),
            leaf.dtype.itemsize,
        )

    @property
    def _reach(self) -> tuple[int, int]:
        """Lengths of the largest hops backwards and forwards."""
        return max(0, *(-hop for hop in self.hops)), max(0, *self.hops)

    def shift(self, x: jax.Array) -> jax.Array:
        """Multiply `W` of a circulant graph by `x` `[N, …]` on one shard."""
        before, after = self._reach
        around = jnp.concatenate([x[len(x) - before :], x, x[:after]])
        return self._sum_of_hops(around, x, self.own, self.weights[self.by_hop])

    def _sum_of_hops(self, around: jax.Array, x: jax.Array, own: jax.Array, weights: jax.Array) -> jax.Array:
        """Multiply each row of `x` by its own weight, and add the weighted rows of `around` that its hops reach."""
        total = expand(own, x) * x
        for hop, weight in zip(self.hops, weights.T, strict=True):
            start = self._reach[0] + hop
            total = total + expand(weight, x) * around[start : start + len(x)]
        return total

    def multiply(self, x: jax.Array) -> jax.Array:
        """Multiply `W` by `x` `[N, …]`, which contains the columns of one shard."""

        def hear(slots: jax.Array) -> jax.Array:
            senders = jnp.take(self.senders, slots, mode="clip")  # padding reads any sender, with weight 0
            weights = jnp.take(self.weights, slots, mode="fill", fill_value=0)

            def add(total, columns):
                for sender, weight in zip(*columns, strict=True):
                    total = total + expand(weight, x) * x[sender]
                return total, None

            zeros = jnp.zeros((slots.shape[0], *x.shape[1:]), jnp.result_type(weights, x))
            if slots.shape[1] <= _UNROLLED:
                return add(zeros, (senders.T, weights.T))[0]
            turns = jax.tree.map(lambda a: a.T.reshape(-1, _UNROLLED, slots.shape[0]), (senders, weights))
            return jax.lax.scan(add, zeros, turns)[0]

        groups = [hear(slots) for slots in self.slots]
        heard = groups[0] if self.place is None else jnp.concatenate(groups)[self.place]
        return expand(self.own, x) * x + heard

    def links(self) -> jax.Array:
        """Mark the links whose weight is not 0, `[E]` int32."""
        return (self.weights != 0).astype(jnp.int32)

    def endpoints(self, count: int) -> tuple[jax.Array, jax.Array]:
        """Return the receivers and senders `[E]` of all links."""
        return self.receivers, self.senders

    def pushes(self, targets: jax.Array) -> jax.Array:
        """Mark the links from a device to its target, `[E]` int32."""
        return (self.receivers == targets[self.senders]).astype(jnp.int32)

    def push_targets(self, key: jax.Array) -> jax.Array:
        """Draw one out-neighbour of each device, `[N]` int32; `N` for a device without out-neighbours."""
        links = self.links()
        degree = jax.ops.segment_sum(links, self.senders, self.devices)
        number = jax.random.randint(key, (self.devices,), 0, jnp.maximum(degree, 1))
        before = jnp.cumsum(degree) - degree
        found = jnp.searchsorted(jnp.cumsum(links[self.by_sender]), before + number, side="right")
        target = jnp.append(self.receivers[self.by_sender], self.devices)[found]
        return jnp.where(degree > 0, target, self.devices)

    def reaches(self, targets: jax.Array) -> jax.Array:
        """Mark the devices that have a link to their target, `[N]` bool."""
        return jax.ops.segment_sum(self.links() * self.pushes(targets), self.senders, self.devices) > 0

    def _sums(self, weights: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(weights, self.receivers, self.devices, indices_are_sorted=True)

    def weighted(self, own: jax.Array, weights: jax.Array) -> "Links":
        """Replace the weights, and divide each row by its sum."""
        total = own + self._sums(weights)
        return dataclasses.replace(self, own=own / total, weights=weights / total[self.receivers])

    def thinned(self, kept: jax.Array) -> "Links":
        """Remove the links where `kept` is 0; receivers add the lost weight to their own."""
        lost = jnp.where(kept.astype(bool), 0, self.weights)
        return dataclasses.replace(self, own=self.own + self._sums(lost), weights=self.weights - lost)

    def dense(self) -> jax.Array:
        """Return `W` as an array `[N, N]`."""
        return jnp.diag(self.own).at[self.receivers, self.senders].set(self.weights)

    def take(self, turn: jax.Array) -> "Links":
        """Take matrix number `turn` of a stacked cycle."""
        own, weights = jnp.asarray(self.own), jnp.asarray(self.weights)
        return dataclasses.replace(self, own=own[turn], weights=weights[turn])

    def sample_matrices(self) -> list[scipy.sparse.csr_array]:
        """Return the matrix, or the matrices of the cycle, on the host."""
        own, weights = np.atleast_2d(np.asarray(self.own, np.float64), np.asarray(self.weights, np.float64))
        diagonal = np.arange(self.devices)
        places = np.append(self.receivers, diagonal), np.append(self.senders, diagonal)
        shape = (self.devices, self.devices)
        return [
            scipy.sparse.csr_array((np.append(*values), places), shape=shape)
            for values in zip(weights, own, strict=True)
        ]

    def sent_by_device(self, counts: np.ndarray) -> np.ndarray:
        """Sum the counts of the links from each device, `[N]`."""
        return self._count(self.senders, counts)

    def received_by_device(self, counts: np.ndarray) -> np.ndarray:
        """Sum the counts of the links to each device, `[N]`."""
        return self._count(self.receivers, counts)

    def _count(self, devices: Any, counts: np.ndarray) -> np.ndarray:
        sums = np.zeros(self.devices, np.int64)  # `np.bincount` would count in floating point
        np.add.at(sums, np.asarray(devices), counts)
        return sums

    def ends(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the receivers and senders of the links whose counts are not 0."""
        (used,) = np.nonzero(counts)
        return np.asarray(self.receivers)[used], np.asarray(self.senders)[used]


def from_matrices(*matrices: Any, form: str = "") -> Links:
    """Store a mixing matrix, or the matrices of a cycle, by links.

    Args:
      *matrices: arrays or sparse arrays `[N, N]`; several for a cycle.
      form: form of products, as in `Links`.

    Returns:
      `Links` that hold NumPy arrays, with weights in float64.

    Raises:
      InputError: if the form is `shift` and the graph is not circulant.

    Examples:
      >>> from ddjax.networks import from_matrices
      >>> links = from_matrices([[0.6, 0.4, 0], [0.4, 0.2, 0.4], [0, 0.4, 0.6]])
      >>> list(zip(links.senders.tolist(), links.receivers.tolist()))
      [(1, 0), (0, 1), (2, 1), (1, 2)]
      >>> links.own.tolist()
      [0.6, 0.2, 0.6]
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
    hops, by_hop = _hops(receivers, senders, devices)
    if form == "shift" and not hops:
        raise InputError(
            "mixing product 'shift' needs a graph in which every device n hears n + h for the same numbers h, as in a "
            "ring"
        )
    cycle = len(rounds) > 1
    return Links(
        own=own if cycle else own[0],
        weights=weights if cycle else weights[0],
        senders=senders.astype(np.int32),
        receivers=receivers.astype(np.int32),
        by_sender=np.lexsort((receivers, senders)).astype(np.int32),
        slots=slots,
        place=place,
        by_hop=by_hop,
        hops=hops,
        form=form,
    )


def _hops(receivers: np.ndarray, senders: np.ndarray, devices: int) -> tuple[tuple[int, ...], np.ndarray | None]:
    """Find the hops of a circulant graph, and the numbers of its links by receiver and hop; see `Links`."""
    hop = (senders - receivers + devices // 2) % devices - devices // 2
    hops, counts = np.unique(hop, return_counts=True)
    if not len(hops) or (counts != devices).any():
        return (), None
    return tuple(map(int, hops)), np.lexsort((hop, receivers)).reshape(devices, -1).astype(np.int32)


def _slots(receivers: np.ndarray, devices: int) -> tuple[tuple[np.ndarray, ...], np.ndarray | None]:
    """List the links of each device, in groups of devices that have similar numbers of links; see `Links`."""
    degree = np.bincount(receivers, minlength=devices)
    first = np.cumsum(degree) - degree
    size = np.ceil(np.log2(np.maximum(degree, 1)) / 2)  # by powers of four: few groups compile and run faster
    slots = []
    for group in np.unique(size):
        rows = np.flatnonzero(size == group)
        width = degree[rows].max()
        column = np.arange(width if width <= _UNROLLED else -(-width // _UNROLLED) * _UNROLLED)
        slots.append(np.where(column < degree[rows, None], first[rows, None] + column, len(receivers)).astype(np.int32))
    place = np.argsort(np.argsort(size, kind="stable")).astype(np.int32) if len(slots) > 1 else None
    return tuple(slots), place
