"""Memory that a program needs, estimated only from its shapes."""

import math
from collections.abc import Callable
from typing import Any

from jax.extend.core import Var


def nbytes(shape: Any) -> int:
    """Return the bytes of an array of this shape and dtype."""
    return math.prod(shape.shape) * shape.dtype.itemsize


def size_on(platform: str) -> Callable[[Any], int]:
    """Return the function that counts the bytes of an array on a backend.

    A TPU pads the last two axes to whole tiles of 8 × 128. If padding would more than double the size of an array, the
    compiler puts other axes last; the returned function then counts twice the unpadded size.
    """

    def tiled(shape: Any) -> int:
        if len(shape.shape) < 2:
            return nbytes(shape)
        others, (rows, columns) = shape.shape[:-2], shape.shape[-2:]
        filled = math.prod(others) * (-(-rows // 8) * 8) * (-(-columns // 128) * 128) * shape.dtype.itemsize
        return min(filled, 2 * nbytes(shape))

    return tiled if platform == "tpu" else nbytes


def peak_bytes(jaxpr: Any, shards: int = 1, size: Callable[[Any], int] = nbytes) -> int:
    """Estimate the peak memory of a program in bytes, without its inputs, summed over all shards.

    Each array takes memory from the operation that makes it to the operation that last uses it. The estimate exceeds
    what the arrays need, because a compiler fuses much of the program and updates arrays in place. The estimate leaves
    out memory that the compiler itself needs.

    Args:
      jaxpr: the program.
      shards: number of shards over which the parts of the program within `shard_map` are spread.
      size: function that counts the bytes of one array (see `size_on`).
    """
    last: dict[Var, int] = {}
    for number, equation in enumerate(jaxpr.eqns):
        last |= {variable: number for variable in equation.invars if isinstance(variable, Var)}
    last |= {variable: len(jaxpr.eqns) for variable in jaxpr.outvars if isinstance(variable, Var)}
    ends = [0] * (len(jaxpr.eqns) + 1)
    alive = peak = 0
    for number, equation in enumerate(jaxpr.eqns):
        made = {variable: size(variable.aval) for variable in equation.outvars if variable in last}
        inner = max((peak_bytes(program, shards, size) for program in _programs(equation.params)), default=0)
        if equation.primitive.name == "shard_map":  # its program has the shapes of one shard
            inner *= shards
        peak = max(peak, alive + max(sum(made.values()), inner))
        alive += sum(made.values())
        for variable, held in made.items():
            ends[last[variable]] += held
        alive -= ends[number]
    return peak


def _programs(params: dict[str, Any]) -> list[Any]:
    values = [value for param in params.values() for value in (param if isinstance(param, tuple | list) else [param])]
    return [getattr(value, "jaxpr", value) for value in values if hasattr(value, "eqns")]
