"""Stacked devices of one architecture; no other module depends on how they are executed."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddjax import forms, sharding
from ddjax.footprint import nbytes, peak_bytes, size_on
from ddjax.models import MODELS
from ddjax.sharding import by_device
from ddjax.types import Learner, PyTree


class Group(NamedTuple):
    """Devices of one architecture.

    Attributes:
      learner: learner of each device.
      size: number of devices.
      chunk: number of devices that are vectorized at a time on one shard; `None` for as many as fit in memory or, on a
        CPU, for all devices.

    Examples:
      >>> group = ddjax.Group(learner, size=8)
      >>> ddjax.Population([group, ddjax.Group(learner, size=4)], batch_size=16).size
      12
    """

    learner: Learner
    size: int
    chunk: int | None = None

    def map(
        self, function: Callable[..., tuple[PyTree, PyTree]], shared: PyTree, carried: PyTree, *arguments: PyTree
    ) -> tuple[PyTree, PyTree]:
        """Map a function of one device, `(shared, carried, *arguments) → (carried, output)`, over stacked pytrees.

        Chunks are updated in place, so memory never holds `carried` twice. The function must not close over a traced
        array; `shared` holds the values that are the same for all devices.

        Returns:
          The stacked `carried` and outputs.
        """

        def here(shared: PyTree, *arguments: PyTree):
            return self._map(jax.vmap(partial(function, shared)), *arguments)

        return by_device(here, shared, carried, *arguments)

    def _map(self, function: Callable, carried: PyTree, *arguments: PyTree):
        devices = jax.tree.leaves((carried, arguments))[0].shape[0]
        chunks = math.ceil(devices / (self.chunk or self._fitting(devices, function, carried, *arguments)))
        if chunks == 1:
            return function(carried, *arguments)
        size = math.ceil(devices / chunks)  # as even as possible

        def apply(start: Any, size: int, carried: PyTree, outputs: PyTree):
            def part(leaf):
                return jax.lax.dynamic_slice_in_dim(leaf, start, size)

            def put(leaf, fresh):
                return jax.lax.dynamic_update_slice_in_dim(leaf, fresh, start, 0)

            moved, fresh = function(*jax.tree.map(part, (carried, *arguments)))
            return jax.tree.map(put, carried, moved), jax.tree.map(put, outputs, fresh)

        shapes = jax.eval_shape(function, carried, *arguments)[1]
        outputs = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
        whole = devices // size
        done = jax.lax.fori_loop(0, whole, lambda i, both: apply(i * size, size, *both), (carried, outputs))
        return apply(whole * size, devices % size, *done) if devices % size else done

    @staticmethod
    def _fitting(devices: int, function: Callable, *arguments: PyTree) -> int:
        """Find the number of devices to vectorize at a time if no chunk size is given."""
        if (platform := sharding.platform()) == "cpu":
            return devices
        one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype), arguments)
        program = jax.make_jaxpr(function)(*one).jaxpr
        return forms.at_a_time(platform, devices, peak_bytes(program, size=size_on(platform)))


def chunk_for(model: str, learner: Learner) -> int | None:
    """Pick the number of devices to vectorize at a time, the `chunk` of a `Group`, for the backend of the ambient mesh.

    Args:
      model: name of a model in `models.MODELS`.
      learner: learner of that model.

    Returns:
      The number, or `None` to take as many devices as fit in memory.

    Examples:
      On a CPU, the parameters of a chunk fit in the cache of a core:

      >>> model = ddjax.build_model("mlp", (8, 8), 10)
      >>> learner = ddjax.supervised_learner(model, optax.sgd(0.05))
      >>> ddjax.Group(learner, 100, chunk=chunk_for("mlp", learner)).chunk
      13
    """
    device = jax.eval_shape(learner.init, jax.eval_shape(jax.random.key, 0))
    return forms.device_chunk(
        sharding.platform(), MODELS[model].convolutional, sum(map(nbytes, jax.tree.leaves(device.params)))
    )
