"""The device axis over several accelerators, hosts, or host devices of one CPU: a `jax.sharding.Mesh` of one axis.

Layout never changes a result, but for the order of a few sums over devices: what is computed of one device is computed
in one place, and where the number of devices cannot be divided evenly, the padding is cut off again before anything
sees it. The mesh is ambient (`jax.set_mesh`, done by `Simulation`); without one everything runs on one accelerator.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ddjax.types import PyTree

AXIS = "devices"

# Entries that are exchanged at a time: few enough to need little memory, enough that an exchange is worth its start.
_BLOCK = 2**18


def mesh(accelerators: Sequence[jax.Device] | None = None) -> Mesh:
    """The accelerators, by default all of all processes, in one axis."""
    accelerators = accelerators or jax.devices()
    return jax.make_mesh((len(accelerators),), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,), devices=accelerators)


def parts() -> int:
    """Over how many accelerators the ambient mesh spreads the device axis."""
    return jax.sharding.get_abstract_mesh().shape.get(AXIS, 1)


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy in every place."""
    return NamedSharding(mesh, P())


def stacked(mesh: Mesh, tree: PyTree) -> PyTree:
    """Of each leaf (an array or its shape), how it is kept between compiled calls: spread along its leading axis.

    A leaf whose leading axis does not divide evenly is kept whole in every place; inside a call it is spread as well.
    """

    def layout(leaf) -> NamedSharding:
        even = leaf.ndim > 0 and leaf.shape[0] % mesh.size == 0
        return NamedSharding(mesh, P(AXIS) if even else P())

    return jax.tree.map(layout, tree)


def by_device(function: Callable[..., PyTree], shared: PyTree, *arguments: PyTree) -> PyTree:
    """`function` of stacked pytrees, called in every place with the devices that are there.

    Args:
      function: `(shared, *arguments)`, for any `n` of leaves `[n, …]`, device by device; `[n, …]` leaves come back. It
        closes over no traced array.
      shared: what it takes of all devices alike.
      arguments: pytrees with leaves `[N, …]`.
    """
    places = parts()
    if places == 1:
        return function(shared, *arguments)
    devices = jax.tree.leaves(arguments)[0].shape[0]
    padded = jax.tree.map(lambda leaf: _pad(leaf, 0, places), arguments)
    specs = (P(), *(P(AXIS) for _ in arguments))
    out = jax.shard_map(function, in_specs=specs, out_specs=P(AXIS), check_vma=False)(shared, *padded)
    return jax.tree.map(lambda leaf: leaf[:devices], out)


def by_column(function: Callable[[PyTree, jax.Array], jax.Array], shared: PyTree, x: jax.Array) -> jax.Array:
    """`function(shared, x)` of `x` `[N, P]`, called in every place with all rows of a part of the columns.

    Two exchanges of `x`, a block of columns at a time and in place, where gathering it would move several times as much
    and keep all of it in every place.

    Args:
      function: treats columns alike; `[N, p]` comes back. It closes over no traced array.
      shared: what it takes beside `x`, such as a mixing matrix.
      x: `[N, P]`.
    """
    places = parts()
    if places == 1:
        return function(shared, x)
    rows, columns = x.shape

    def block(shared: PyTree, part: jax.Array) -> jax.Array:
        width = part.shape[1]
        part = jax.lax.all_to_all(_pad(part, 1, places), AXIS, split_axis=1, concat_axis=0, tiled=True)[:rows]
        out = _pad(function(shared, part), 0, places)
        return jax.lax.all_to_all(out, AXIS, split_axis=0, concat_axis=1, tiled=True)[:, :width]

    def exchange(shared: PyTree, part: jax.Array) -> jax.Array:
        def apply(start: Any, width: int, part: jax.Array) -> jax.Array:
            out = block(shared, jax.lax.dynamic_slice_in_dim(part, start, width, 1))
            return jax.lax.dynamic_update_slice_in_dim(part, out, start, 1)

        width = min(columns, max(places, _BLOCK // rows))
        whole, rest = divmod(columns, width)
        part = jax.lax.fori_loop(0, whole, lambda i, part: apply(i * width, width, part), part)
        return apply(whole * width, rest, part) if rest else part

    mapped = jax.shard_map(exchange, in_specs=(P(), P(AXIS)), out_specs=P(AXIS), check_vma=False)
    return mapped(shared, _pad(x, 0, places))[:rows]


def _pad(x: jax.Array, axis: int, places: int) -> jax.Array:
    return jnp.pad(x, [(0, -x.shape[axis] % places if i == axis else 0) for i in range(x.ndim)])
