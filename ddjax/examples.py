"""Examples stored on accelerators as flat rows; private examples lie on the shard of the device that holds them."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ddjax import sharding
from ddjax.sharding import AXIS
from ddjax.stacked import shapes
from ddjax.types import Problem


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Examples:
    """Examples `[M, …]`, each stored as a flat row, because a TPU would pad each row of pixels to whole tiles.

    Indexing by row numbers works as in an array `[M, …]`: it returns examples in their original shape. Within
    `sharding.by_device`, examples that are spread over the shards contain only the rows of this shard, but the row
    numbers stay the same.

    Attributes:
      rows: the flat examples, `[M, D]`, or labels, `[M]`.
      each: shape of one example.
      layout: if the rows are spread over the shards (equally many rows on each), the number of devices of each
        architecture, in order; empty if every shard has all rows.
    """

    rows: Any
    each: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    layout: tuple[int, ...] = dataclasses.field(default=(), metadata={"static": True})

    @property
    def spread(self) -> bool:
        """Whether the rows are spread over the shards."""
        return bool(self.layout)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array, `(M, …)`."""
        return (len(self), *self.each)

    @property
    def ndim(self) -> int:
        """Number of axes of the array."""
        return 1 + len(self.each)

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the array."""
        return self.rows.dtype

    def __len__(self) -> int:
        return self.rows.shape[0]

    def __iter__(self) -> Iterator[jax.Array]:
        return iter(self[:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return all examples on the host."""
        return np.asarray(sharding.on_host(self.rows), dtype).reshape(self.shape)

    def __getitem__(self, index: Any) -> jax.Array:
        if self.spread and AXIS in jax.sharding.get_abstract_mesh().manual_axes:
            index = index - jax.lax.axis_index(AXIS) * len(self)
        found = self.rows[index]
        return found.reshape(*found.shape[: found.ndim - min(1, len(self.each))], *self.each)


def flat(x: Any) -> Examples:
    """Store examples `[M, …]` (an array or its shape) as flat rows, with a copy of all rows on every shard."""
    if isinstance(x, Examples):
        return x
    rows = (len(x), math.prod(x.shape[1:])) if x.ndim > 1 else x.shape
    lying = jax.ShapeDtypeStruct(rows, x.dtype) if isinstance(x, jax.ShapeDtypeStruct) else x.reshape(rows)
    return Examples(lying, tuple(x.shape[1:]))


def gathered(held: jax.Array, *data: Any) -> tuple[Any, ...]:
    """Bring the examples of some devices to the shards that execute these devices.

    Args:
      held: `[C, n_max]` row numbers of the examples that these devices hold.
      data: the data from which the rows are taken: spread `Examples` `[M, …]`, or arrays.

    Returns:
      The new row numbers, `[C, n_max]`, and the data with only these rows.
    """
    devices, most = held.shape
    rows = jnp.pad(held, [(0, -devices % sharding.shard_count()), (0, 0)])
    found = (Examples(flat(x).rows[rows.ravel()], tuple(x.shape[1:]), (devices,)) for x in data)
    return jnp.arange(held.size).reshape(devices, most), *found


def place_problem(problem: Problem, mesh: Mesh, groups: Sequence[int]) -> Problem:
    """Put a problem on a mesh.

    Each accelerator gets the private examples of its devices, and a whole copy of everything else.

    A process reads only the private examples of its own devices. If the problem has shapes (`jax.ShapeDtypeStruct`) in
    place of arrays, the result has shapes, too.

    Args:
      problem: problem with NumPy or JAX arrays. Every process must pass the same arrays, unless they are already on
        this mesh.
      mesh: mesh with the axis `devices`.
      groups: number of devices of each architecture, in the order of the device numbers; the devices of each
        architecture are spread evenly over the accelerators.
    """
    if isinstance(problem.x, Examples) and problem.x.spread:
        if problem.x.layout == tuple(groups) and problem.x.rows.sharding == sharding.spread(mesh):
            return problem
        problem = jax.tree.map(sharding.on_host, problem)._replace(x=np.asarray(problem.x), y=np.asarray(problem.y))
    whole = sharding.replicated(mesh)
    public: dict[str, Any] = {name: flat(getattr(problem, name)) for name in ("reference", "x_test")}
    if mesh.size == 1:
        public["x"] = flat(problem.x)
        return sharding.place(problem._replace(**public), whole)
    layout = spread_rows(problem.private_indices, problem.private_counts, mesh.size, tuple(groups))
    private: dict[str, Any] = {"x": layout.lay(problem.x, mesh), "y": layout.lay(problem.y, mesh)}
    stacked = {"private_indices": layout.indices, "private_counts": problem.private_counts, "known": problem.known}
    private |= sharding.place(stacked, sharding.stacked(mesh, stacked))
    rest: dict[str, Any] = {name: getattr(problem, name) for name in ("network", "y_test", "reference_labels")} | public
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(private)):
        rest = shapes(rest)
    return problem._replace(**private, **sharding.place(rest, whole))


class Layout(NamedTuple):
    """Assignment of private examples to several shards.

    Attributes:
      indices: `[N, n_max]`, `Problem.private_indices` renumbered for the stored order.
      source: `[M']` row of `Problem.x` that each stored row copies; each of the `S` shards stores `M' / S` rows. `None`
        if only shapes are known.
      total: number `M'` of stored rows.
      groups: see `place_problem`.
    """

    indices: Any
    source: np.ndarray | None
    total: int
    groups: tuple[int, ...]

    def lay(self, x: Any, mesh: Mesh) -> Examples:
        """Store examples `[M, …]` (an array or its shape) in this layout."""
        each, spread = tuple(x.shape[1:]), sharding.spread(mesh)
        shape = (self.total, math.prod(each)) if each else (self.total,)
        if self.source is None or isinstance(x, jax.ShapeDtypeStruct):
            return Examples(jax.ShapeDtypeStruct(shape, x.dtype, sharding=spread), each, self.groups)
        source = self.source

        def rows(index: Any) -> np.ndarray:
            taken = np.asarray(x[source[index[0]]])
            return taken.reshape(len(taken), *shape[1:])

        return Examples(jax.make_array_from_callback(shape, spread, rows), each, self.groups)


def spread_rows(indices: Any, counts: Any, shards: int, groups: tuple[int, ...]) -> Layout:
    """Assign private examples to the shards of the devices that hold them.

    Args:
      indices: `Problem.private_indices`, an array or its shape.
      counts: `Problem.private_counts`, an array or its shape; for a shape, every device is assumed to hold
        `n_max` examples.
      shards: number of shards.
      groups: see `place_problem`.
    """
    devices, most = indices.shape
    shard = np.concatenate([np.arange(size) // -(-size // shards) for size in groups])
    held = np.full(devices, most) if isinstance(counts, jax.ShapeDtypeStruct) else np.asarray(counts)
    rows = int(np.bincount(shard, held, shards).max())
    if isinstance(indices, jax.ShapeDtypeStruct):
        return Layout(indices, None, rows * shards, groups)
    order = np.argsort(shard, kind="stable")
    ends = np.cumsum(held[order])
    first = np.empty(devices, np.int64)  # first row of each device among the rows of its shard
    first[order] = ends - held[order]
    on_shards_before = np.append(0, np.bincount(shard, held, shards).cumsum()[:-1]).astype(np.int64)
    first -= on_shards_before[shard]
    column = np.arange(most)
    counted = column < held[:, None]
    lying = np.where(counted, (shard * rows + first)[:, None] + column, (shard * rows)[:, None])
    source = np.zeros(rows * shards, np.int64)
    source[lying[counted]] = np.asarray(indices)[counted]
    return Layout(lying.astype(np.int32), source, rows * shards, groups)
