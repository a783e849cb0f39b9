"""Layout of the device axis over accelerators, hosts, or host devices of a CPU: a `jax.sharding.Mesh` with one axis.

The layout changes no result, except that it changes the order in which a few sums over devices are computed. Everything
that belongs to one device is computed on one shard. If the number of devices is not a multiple of the number of shards,
devices are added as padding, and are removed before any other code sees them. The mesh is ambient (`jax.set_mesh`,
called by `Simulation`); without a mesh, everything runs on one accelerator.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ddjax.types import PyTree

AXIS = "devices"

# Entries that host devices exchange at a time: few enough to stay in cache, but enough to make an exchange worthwhile.
_BLOCK = 2**18


def mesh(accelerators: Sequence[jax.Device] | None = None) -> Mesh:
    """Make a mesh with one axis from accelerators; by default from all accelerators of all processes."""
    accelerators = accelerators or jax.devices()
    return jax.make_mesh((len(accelerators),), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,), devices=accelerators)


def shard_count() -> int:
    """Count the accelerators over which the ambient mesh spreads the device axis."""
    return jax.sharding.get_abstract_mesh().shape.get(AXIS, 1)


def platform(mesh: Mesh | None = None) -> str:
    """Return `cpu`, `gpu` or `tpu`: the platform of a mesh, or of the ambient mesh if none is given."""
    if mesh is not None:
        found = mesh.devices.flat[0].platform
    else:
        ambient = jax.sharding.get_abstract_mesh().abstract_device
        found = ambient.platform if ambient else jax.default_backend()
    return found if found in ("cpu", "tpu") else "gpu"


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the layout with a whole copy on every accelerator."""
    return NamedSharding(mesh, P())


def spread(mesh: Mesh) -> NamedSharding:
    """Return the layout with equal parts of the leading axis on the accelerators."""
    return NamedSharding(mesh, P(AXIS))


def stacked(mesh: Mesh, tree: PyTree) -> PyTree:
    """Return the layout of each leaf (an array or its shape) between compiled calls: spread along its leading axis.

    A leaf whose leading axis does not divide evenly is kept whole on every accelerator; inside a call, it is spread,
    too.
    """

    def layout(leaf) -> NamedSharding:
        even = leaf.ndim > 0 and leaf.shape[0] % mesh.size == 0
        return spread(mesh) if even else replicated(mesh)

    return jax.tree.map(layout, tree)


def place(tree: PyTree, layout: PyTree) -> PyTree:
    """Put arrays on a mesh; every process must pass the same arrays.

    If any array is a shape (`jax.ShapeDtypeStruct`), all become shapes, so no accelerator is needed.

    Args:
      tree: pytree of arrays.
      layout: one sharding for all arrays, or a pytree with a sharding for each.
    """

    def put(leaf: Any, layout: jax.sharding.Sharding) -> Any:
        if by_shape:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=layout)
        there = isinstance(leaf, jax.Array) and leaf.sharding.is_equivalent_to(layout, leaf.ndim)
        if there or layout.is_fully_addressable:
            return jax.device_put(leaf, layout)
        # `device_put` would gather the array from every process, to compare the copies.
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, layout, lambda index: host[index])

    by_shape = any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(tree))
    layouts = jax.tree.map(lambda _: layout, tree) if isinstance(layout, jax.sharding.Sharding) else layout
    return jax.tree.map(put, tree, layouts)


def on_host(x: Any) -> np.ndarray:
    """Copy an array to NumPy in every process; parts that other processes hold are gathered."""
    if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
        mesh: Any = x.sharding.mesh  # type: ignore[attr-defined]
        x = jax.jit(lambda x: x, out_shardings=replicated(mesh))(x)
    return np.asarray(x)


def by_device(function: Callable[..., PyTree], shared: PyTree, *arguments: PyTree) -> PyTree:
    """Call a function of stacked pytrees on every shard, with the devices of that shard.

    Args:
      function: `(shared, *arguments)`, which takes leaves `[n, …]` for any `n`, treats each device independently, and
        returns leaves `[n, …]`. It must not close over a traced array.
      shared: values that are the same for all devices; of spread `Examples`, each shard gets its own rows.
      arguments: pytrees with leaves `[N, …]`.

    Raises:
      ValueError: private examples are spread for groups with other numbers of devices.
    """
    shards = shard_count()
    if shards == 1:
        return function(shared, *arguments)
    devices = jax.tree.leaves(arguments)[0].shape[0]
    padded = jax.tree.map(lambda leaf: _pad(leaf, 0, shards), arguments)

    def is_spread(node: Any) -> bool:
        return getattr(node, "spread", False) is True

    for node in jax.tree.leaves(shared, is_leaf=is_spread):
        if is_spread(node) and devices not in node.layout:
            raise ValueError(
                f"private examples are spread for groups of {node.layout} devices, but {devices} devices are mapped; "
                "the state of an algorithm must have `devices`, a stacked pytree for each group of one architecture"
            )
    split = jax.tree.map(lambda node: P(AXIS) if is_spread(node) else P(), shared, is_leaf=is_spread)
    specs = (split, *(P(AXIS) for _ in arguments))
    out = jax.shard_map(function, in_specs=specs, out_specs=P(AXIS), check_vma=False)(shared, *padded)
    return jax.tree.map(lambda leaf: leaf[:devices], out)


def extended(x: jax.Array, before: int, after: int) -> jax.Array:
    """Extend the rows of this shard by rows of the shards before and after it, cyclically; called within `by_device`.

    Args:
      x: rows of this shard; every shard has the same number of rows.
      before: number of rows to put before these rows, at most the number of rows on all shards.
      after: number of rows to put after these rows, with the same limit.
    """
    shards, rows = shard_count(), len(x)

    def others(count: int, distance: int) -> list[jax.Array]:
        """Collect rows of ever more distant shards: all rows of each, but from the last only as many as are needed."""
        parts = []
        while count > 0:
            part = (x[:count] if distance > 0 else x[-count:]) if count < rows else x
            here = [((to + distance) % shards, to) for to in range(shards)]
            parts.append(jax.lax.ppermute(part, AXIS, here) if distance % shards else part)
            count, distance = count - rows, distance + (1 if distance > 0 else -1)
        return parts

    return jnp.concatenate([*reversed(others(before, -1)), x, *others(after, 1)])


def by_column(function: Callable[[PyTree, jax.Array], jax.Array], shared: PyTree, x: jax.Array) -> jax.Array:
    """Call `function(shared, x)` for `x` `[N, …]` on every shard, with all rows and a part of the columns.

    The shards exchange `x`, and then the result. Gathering `x` would move several times as many bytes, and would keep
    all of `x` on every accelerator. On a CPU, the exchanges are done in place, one block of columns at a time.

    Args:
      function: function that treats all columns alike and returns `[N, …]`. It must not close over a traced array.
      shared: other inputs, such as a mixing matrix.
      x: `[N, …]`.
    """
    shards, on_cpu = shard_count(), platform() == "cpu"
    if shards == 1 and not on_cpu:  # on a chip, flattening `x` to two axes would change its layout
        return function(shared, x)
    flat = x.reshape(len(x), -1)
    if shards == 1:
        return function(shared, flat).reshape(x.shape)
    rows, columns = flat.shape

    def block(shared: PyTree, part: jax.Array) -> jax.Array:
        width = part.shape[1]
        part = jax.lax.all_to_all(_pad(part, 1, shards), AXIS, split_axis=1, concat_axis=0, tiled=True)[:rows]
        out = _pad(function(shared, part), 0, shards)
        return jax.lax.all_to_all(out, AXIS, split_axis=0, concat_axis=1, tiled=True)[:, :width]

    def exchange(shared: PyTree, part: jax.Array) -> jax.Array:
        def apply(start: Any, width: int, part: jax.Array) -> jax.Array:
            out = block(shared, jax.lax.dynamic_slice_in_dim(part, start, width, 1))
            return jax.lax.dynamic_update_slice_in_dim(part, out, start, 1)

        width = min(columns, max(shards, _BLOCK // rows))
        whole, rest = divmod(columns, width)
        part = jax.lax.fori_loop(0, whole, lambda i, part: apply(i * width, width, part), part)
        return apply(whole * width, rest, part) if rest else part

    mapped = jax.shard_map(exchange if on_cpu else block, in_specs=(P(), P(AXIS)), out_specs=P(AXIS), check_vma=False)
    return mapped(shared, _pad(flat, 0, shards))[:rows].reshape(x.shape)


def _pad(x: jax.Array, axis: int, shards: int) -> jax.Array:
    return jnp.pad(x, [(0, -x.shape[axis] % shards if i == axis else 0) for i in range(x.ndim)])
