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

_TEMPORARY = {"tpu": 2**29, "gpu": 2**31}  # bytes
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


def at_a_time(platform: str, count: int, bytes_each: float) -> int:
    """How many of `count` devices or examples an accelerator takes at a time, by the memory that each needs for it."""
    fitting = max(1, int(_TEMPORARY[platform] // max(bytes_each, 1)))
    if fitting >= count:
        return count
    return fitting // _TILE * _TILE or fitting


def loop_options(platform: str) -> dict[str, str]:
    """Options of the compiler for the loop over rounds.

    On a GPU the whole loop becomes one CUDA graph. Else the host waits each round for the value of its condition, and
    starts the next one. What the user says in `XLA_FLAGS` about command buffers is left alone.
    """
    if platform != "gpu" or "xla_gpu_enable_command_buffer" in os.environ.get("XLA_FLAGS", ""):
        return {}
    return {
        "xla_gpu_enable_command_buffer": "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,COLLECTIVES,CONDITIONAL,WHILE,DYNAMIC_SLICE_FUSION",
        "xla_gpu_graph_min_graph_size": "1",
    }
