"""Estimate of the memory that a run needs, from shapes alone, before anything is compiled."""

import os
import re
from pathlib import Path

import jax

from ddjax import sharding
from ddjax.footprint import peak_bytes, size_on
from ddjax.simulation.simulation import Simulation


def estimate(simulation: Simulation) -> tuple[int, int]:
    """Estimate the minimum and the peak memory of a run, in bytes: of the host on a CPU, otherwise of each accelerator.

    The minimum consists of the problem and the state, which are replicated on the accelerators or spread over them. The
    peak adds the arrays that a round creates; see `footprint.peak_bytes`.
    """
    shards, platform = simulation.mesh.size, sharding.platform(simulation.mesh)
    together = len(simulation.mesh.local_devices) if platform == "cpu" else 1  # shards that share one memory
    size = size_on(platform)
    held = [(simulation.problem, jax.tree.map(lambda leaf: leaf.sharding, simulation.problem))]
    held += [(simulation.shapes.state, simulation.layout)]
    whole: float = sum(map(size, jax.tree.leaves(simulation.shapes.totals)))
    for tree, layouts in held:
        for leaf, layout in zip(jax.tree.leaves(tree), jax.tree.leaves(layouts), strict=True):
            whole += size(leaf) / (1 if layout.is_fully_replicated else shards)
    made = peak_bytes(simulation.traced.jaxpr.jaxpr, shards, size) / shards
    return int(together * whole), int(together * (whole + made))


def available() -> int:
    """Return the bytes available to a run: free memory of an accelerator, or memory that the host can spare."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        return 1024 * int(re.findall(r"MemAvailable:\s+(\d+)", meminfo.read_text())[0])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
