"""Which form of execution is the quickest: picked from the backend, the shapes and the mesh.

On CPU the rules are measured. On TPUs and GPUs they follow from what a chip can do, and were checked against what the
compilers make of the programs (`scripts/benchmark.py --target`). Flags force each of them.
"""

import os
from typing import NamedTuple


class Chip(NamedTuple):
    """What the rules know of an accelerator, for one of its kind.

    Attributes:
      flops: operations a second of a matrix product in full float32 precision.
      bandwidth: bytes a second of its memory.
      gather: passes over its rows that a sum over links takes per neighbour; a guess.
      shift: likewise of a sum over hops. On a TPU either part of what is shifted is read as a whole.
    """

    flops: float
    bandwidth: float
    gather: float
    shift: float


CHIPS = {
    "tpu": Chip(32e12, 819e9, 4.0, 2.0),  # v5e; six passes in bfloat16
    "gpu": Chip(50e12, 3.35e12, 1.5, 1.0),  # H100
}

_TEMPORARY = {"tpu": 2**30, "gpu": 2**32}  # bytes: the more, the fewer turns
_TILE = 8  # rows of one on a TPU


def mixing_product(
    platform: str, devices: int, heard: float, message: int, shards: int, circulant: bool, itemsize: int = 4
) -> str:
    """The quickest product of a sparse mixing matrix with what the devices hold.

    Args:
      platform: `cpu`, `gpu` or `tpu`.
      devices: `N`.
      heard: neighbours that a device hears, on average.
      message: `P`, numbers that each device holds.
      shards: how many accelerators share the work.
      circulant: whether every device `n` hears the same `n + h`, as in a ring.
      itemsize: bytes of a number.

    Returns:
      `dense`, a matrix product; `gather`, a sum over links; or `shift`, a sum over the hops of a circulant graph.
    """
    if platform == "cpu":
        return "gather"
    chip, numbers = CHIPS[platform], devices * message / shards
    one_pass = numbers * itemsize / chip.bandwidth
    seconds = {
        "dense": max(2 * devices * numbers / chip.flops, 2 * one_pass),
        "gather": (chip.gather * heard + 2) * one_pass,
    }
    if circulant:
        seconds["shift"] = (chip.shift * heard + 2) * one_pass
    return min(seconds, key=seconds.__getitem__)


def convolution(platform: str) -> str:
    """How a convolution with kernels that differ between devices is done: `products` of matrices, or `native`.

    On CPU products are 10 to 60 times quicker. On a GPU a native one is grouped, keeps the loop over rounds out of a
    CUDA graph, and moves half the bytes; that products are quicker is a guess. On a TPU they take twice the time.
    """
    return "native" if platform == "tpu" else "products"


def micro_batch(platform: str, convolutional: bool) -> int:
    """Examples that a model takes at a time, a learner's `micro_batch`; on CPU measured, so that they stay in cache."""
    return 8 if convolutional and platform == "cpu" else 0


# The size of a chunk on a CPU: bytes of parameters, so that a step finds them in a core's cache, and the least
# number of devices, so that its start is worth it. Measured.
_CHUNK_BYTES, _CHUNK_DEVICES = 2**19, 4


def device_chunk(platform: str, convolutional: bool, parameter_bytes: int) -> int | None:
    """Devices that are vectorized at a time on one accelerator, a group's `chunk`; `None` for as many as fit in memory,
    see `at_a_time`."""
    if platform != "cpu":
        return None
    return 1 if convolutional else max(_CHUNK_DEVICES, _CHUNK_BYTES // parameter_bytes)


def at_a_time(platform: str, count: int, bytes_each: float) -> int:
    """How many of `count` devices or examples an accelerator takes at a time, by the memory that each needs for it."""
    fitting = max(1, int(_TEMPORARY[platform] // max(bytes_each, 1)))
    if fitting >= count:
        return count
    return fitting // _TILE * _TILE or fitting


# What goes into CUDA graphs: what XLA puts there anyway, and loops and conditionals.
_GRAPHED = "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,COLLECTIVES,DYNAMIC_SLICE_FUSION,CONDITIONAL,WHILE"


def loop_options(platform: str) -> dict[str, str]:
    """Options of the compiler for the loop over rounds.

    On a GPU the whole loop becomes one CUDA graph. Else the host waits each round for the value of its condition, and
    starts the next one. What the user says in `XLA_FLAGS` about command buffers is left alone.
    """
    if platform != "gpu" or "xla_gpu_enable_command_buffer" in os.environ.get("XLA_FLAGS", ""):
        return {}
    return {"xla_gpu_enable_command_buffer": _GRAPHED, "xla_gpu_graph_min_graph_size": "1"}


def matmul_precision(platform: str, precision: str) -> str:
    """JAX's name of the precision of products.

    On a GPU the names of algorithms say what is done; "tensorfloat32" is float32 in some kernels there, and "bfloat16"
    is TF32. A TPU has passes in bfloat16: one, three for `tf32`, six for `float32`.

    Args:
      platform: `cpu`, `gpu` or `tpu`.
      precision: `float32`, `tf32`, `bfloat16` or `float64`.
    """
    named = {"tf32": "TF32_TF32_F32", "bfloat16": "BF16_BF16_F32"} if platform == "gpu" else {}
    return named.get(precision) or {"tf32": "tensorfloat32", "bfloat16": "bfloat16"}.get(precision, "highest")
