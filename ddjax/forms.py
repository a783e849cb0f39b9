"""Choice of the fastest form of execution for a backend, shapes and a mesh.

The rules for CPUs come from measurements. The rules for TPUs and GPUs are derived from the speed and the memory
bandwidth of a chip, and were checked against the programs that the compilers generate (`scripts/benchmark.py
--target`). A flag can force each form.
"""

import os
from typing import NamedTuple


class Chip(NamedTuple):
    """Numbers that the rules assume for one kind of accelerator.

    Attributes:
      flops: operations per second in matrix products of full float32 precision.
      bandwidth: bytes per second that the memory of the chip reads or writes.
      gather: number of passes over the values of all devices that a sum over links makes per neighbour (a guess).
      shift: number of such passes that a sum over hops makes per neighbour. On a TPU, there are two, because a shifted
        array has two parts, and each part costs a pass over the whole array.
    """

    flops: float
    bandwidth: float
    gather: float
    shift: float


CHIPS = {
    "tpu": Chip(32e12, 819e9, 4.0, 2.0),  # v5e; six passes in bfloat16
    "gpu": Chip(50e12, 3.35e12, 1.5, 1.0),  # H100
}

_TEMPORARY = {"tpu": 2**30, "gpu": 2**32}  # bytes of temporary memory per chunk; larger values make fewer chunks
_TILE = 8  # rows of a tile on a TPU


def mixing_product(
    platform: str, devices: int, heard: float, message: int, shards: int, circulant: bool, itemsize: int = 4
) -> str:
    """Pick the fastest form of the product of a sparse mixing matrix with the values that the devices hold.

    Args:
      platform: `cpu`, `gpu` or `tpu`.
      devices: `N`.
      heard: mean number of neighbours from which a device receives values.
      message: number `P` of values that each device holds.
      shards: number of accelerators that share the work.
      circulant: whether every device `n` receives values from `n + h`, for the same hops `h`, for example in a ring.
      itemsize: bytes per number.

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
    """Pick the form of a convolution whose kernels differ between devices: `products` of matrices, or `native`.

    On a CPU, products are 10 to 60 times faster than native convolutions. On a GPU, a native convolution is a grouped
    convolution. It moves half as many bytes as products, but keeps the loop over rounds out of a CUDA graph. The choice
    of products for GPUs is a guess. On a TPU, products take twice as long as native convolutions.
    """
    return "native" if platform == "tpu" else "products"


def micro_batch(platform: str, convolutional: bool) -> int:
    """Pick the number of examples that a model processes at a time, the `micro_batch` of a learner; 0 means all.

    The number for CPUs comes from measurements: with so few examples, the activations stay in cache.
    """
    return 8 if convolutional and platform == "cpu" else 0


# Size of a chunk on a CPU, as measured: bytes of parameters that stay in the cache of a core, and the least number of
# devices for which starting a step is worthwhile.
_CHUNK_BYTES, _CHUNK_DEVICES = 2**19, 4


def device_chunk(platform: str, convolutional: bool, parameter_bytes: int) -> int | None:
    """Pick the number of devices that one accelerator vectorizes at a time, the `chunk` of a group.

    `None` means as many as fit in memory (see `at_a_time`).
    """
    if platform != "cpu":
        return None
    return 1 if convolutional else max(_CHUNK_DEVICES, _CHUNK_BYTES // parameter_bytes)


def at_a_time(platform: str, count: int, bytes_each: float) -> int:
    """Find how many of `count` devices or examples, each of `bytes_each` bytes, an accelerator processes at a time."""
    fitting = max(1, int(_TEMPORARY[platform] // max(bytes_each, 1)))
    if fitting >= count:
        return count
    return fitting // _TILE * _TILE or fitting


# Operations that go into CUDA graphs: those that XLA puts there by default, plus loops and conditionals.
_GRAPHED = "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,COLLECTIVES,DYNAMIC_SLICE_FUSION,CONDITIONAL,WHILE"


def loop_options(platform: str) -> dict[str, str]:
    """Return compiler options for the loop over rounds.

    On a GPU, the whole loop becomes one CUDA graph. Otherwise, the host would wait for the loop condition in each round
    before it starts the next round. If the user sets command buffers in `XLA_FLAGS`, that setting stays in effect.
    """
    if platform != "gpu" or "xla_gpu_enable_command_buffer" in os.environ.get("XLA_FLAGS", ""):
        return {}
    return {"xla_gpu_enable_command_buffer": _GRAPHED, "xla_gpu_graph_min_graph_size": "1"}


def matmul_precision(platform: str, precision: str) -> str:
    """Return JAX's name for the precision of matrix products.

    On a GPU, a name such as "TF32_TF32_F32" fixes the algorithm, whereas "tensorfloat32" means float32 in some kernels,
    and "bfloat16" means TF32. A TPU multiplies in passes of bfloat16: one pass for `bfloat16`, three for `tf32`, and
    six for `float32`.

    Args:
      platform: `cpu`, `gpu` or `tpu`.
      precision: `float32`, `tf32`, `bfloat16` or `float64`.
    """
    named = {"tf32": "TF32_TF32_F32", "bfloat16": "BF16_BF16_F32"} if platform == "gpu" else {}
    return named.get(precision) or {"tf32": "tensorfloat32", "bfloat16": "bfloat16"}.get(precision, "highest")
